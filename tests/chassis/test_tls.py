"""TLS: which files are taken, whom a server takes a caller for, and which services it refuses."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from cryptography import x509
from google.protobuf import descriptor_pool
from structlog.testing import capture_logs

from chassis import errors, tls
from chassis.admission import Admission
from chassis.local import LocalChannel
from chassis.metrics import Metrics
from chassis.remote import RemoteChannel
from chassis.server import Server, endpoints_of
from insta.users.v1 import events_pb2, events_pb2_grpc
from tests.certificates import Authority, channel_to, credentials_of
from tests.chassis.issuer import Issuer
from tests.people import Failure

CONTRACT = "insta.users.v1.EventService"
READ = events_pb2.ReadEventsRequest()
NOT_ALLOWED = "PERMISSION_DENIED SERVICE_NOT_ALLOWED"
# Of a connection that did not come about nobody tells a reason.
REFUSED = "UNAVAILABLE "


class Events(events_pb2_grpc.EventServiceServicer):
    """A method for services."""

    async def ReadEvents(self, request: events_pb2.ReadEventsRequest, context: object) -> events_pb2.ReadEventsResponse:
        return events_pb2.ReadEventsResponse(epoch="here")


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


def server_of(metrics: Metrics, **options: Any) -> Server:
    """A server of a service that the gateway may call."""
    verifier = Issuer().verifier()
    callers = {CONTRACT: frozenset({"gateway"})}
    endpoints = endpoints_of({CONTRACT: Events()}, verifier, metrics, None, callers=callers)
    return Server(endpoints, verifier, metrics, admission=Admission(10), draining=asyncio.Event(), **options)


@asynccontextmanager
async def serving(certificate: tls.Certificate | tls.Peer | None, metrics: Metrics | None = None) -> AsyncIterator[str]:
    """The address of such a server, for other services."""
    server = server_of(metrics or Metrics(), internal=True, certificate=certificate)
    yield f"127.0.0.1:{await server.start('127.0.0.1:0')}"
    await server.drain(0)


async def read(channel: Any) -> str:
    """How a call ends: OK, or its code and reason."""
    stub = events_pb2_grpc.EventServiceStub(channel)
    try:
        # No token is looked at.
        await stub.ReadEvents(READ, timeout=30, metadata=[("authorization", "Bearer nonsense")])
    except grpc.aio.AioRpcError as error:
        failed = Failure(error)
        return f"{failed.code.name} {failed.reason}"
    return "OK"


async def answer(address: str, credentials: grpc.ChannelCredentials | None, name: str = "users") -> str:
    async with channel_to(name, address, credentials) as channel:
        return await read(channel)


async def test_who_calls_is_told_by_the_dns_names_in_a_certificate(tmp_path: Path, authority: Authority) -> None:
    own = tls.peer(authority.issue(tmp_path / "users", "users"))
    gateway = x509.DNSName("gateway")
    other = x509.DNSName("reports")
    folders = {
        "gateway": authority.issue(tmp_path / "gateway", "gateway"),
        "among others": authority.issue_for(tmp_path / "several", [other, gateway]),
        "another": authority.issue_for(tmp_path / "another", [other]),
        "nobody": authority.issue_for(tmp_path / "nobody", []),
        "only in the subject": authority.issue_for(tmp_path / "subject", [], common_name="gateway"),
        "in the subject, too": authority.issue_for(tmp_path / "both", [other], common_name="gateway"),
        "as a URI": authority.issue_for(tmp_path / "uri", [x509.UniformResourceIdentifier("gateway")]),
        "as an address of email": authority.issue_for(tmp_path / "email", [x509.RFC822Name("gateway")]),
        "in a domain": authority.issue(tmp_path / "domain", "gateway.example"),
        "in capitals": authority.issue(tmp_path / "capitals", "GATEWAY"),
    }

    async with serving(own) as address:
        # Twice: the second time the names are remembered.
        answers = [
            {name: await answer(address, credentials_of(folder)) for name, folder in folders.items()} for _ in range(2)
        ]

    allowed = {name: "OK" if name in ("gateway", "among others") else NOT_ALLOWED for name in folders}
    assert answers == [allowed, allowed]


async def test_a_caller_is_remembered_for_one_connection_only(tmp_path: Path, authority: Authority) -> None:
    """Not by its address: after the end of a connection another may come from there, with the names as another kind."""
    as_dns = {"peer_dns": [b"gateway"]}
    as_uri: dict[str, list[bytes]] = {"peer_uri": [b"gateway"]}

    class Context:
        def __init__(self, peer: str, key: str, known: dict[str, list[bytes]]) -> None:
            self._answers = {"peer": peer, "peer_identity_key": key, "peer_identities": [b"gateway"]}
            self._known = known

        def __getattr__(self, name: str) -> Callable[[], Any]:
            return lambda: self._answers[name]

        def auth_context(self) -> dict[str, list[bytes]]:
            return self._known

    callers = tls.Callers()
    alternative = "x509_subject_alternative_name"

    assert callers.names(Context("ipv4:127.0.0.1:1", alternative, as_dns)) == {"gateway"}  # type: ignore[arg-type]
    assert callers.names(Context("ipv4:127.0.0.1:2", alternative, as_uri)) == frozenset()  # type: ignore[arg-type]
    assert callers.names(Context("ipv4:127.0.0.1:1", "x509_common_name", {})) == frozenset()  # type: ignore[arg-type]


async def test_a_connection_without_a_certificate_of_the_authority_is_refused(
    tmp_path: Path, authority: Authority
) -> None:
    foreign = Authority()
    own = tls.peer(authority.issue(tmp_path / "users", "users"))
    stranger = foreign.issue(tmp_path / "foreign", "gateway")
    (stranger / "ca.crt").write_bytes(own.authority)
    expired = authority.issue(tmp_path / "expired", "gateway", ends=-0.01)

    async with serving(own) as address:
        answers = {
            "plaintext": await answer(address, None),
            "none": await answer(address, grpc.ssl_channel_credentials(own.authority)),
            "of another authority": await answer(address, credentials_of(stranger)),
            "expired": await answer(address, credentials_of(expired)),
        }

    assert answers == dict.fromkeys(answers, REFUSED)


async def test_a_server_whose_certificate_is_for_another_service_is_not_talked_to(
    tmp_path: Path, authority: Authority
) -> None:
    gateway = tls.peer(authority.issue(tmp_path / "gateway", "gateway"))
    contracts = [descriptor_pool.Default().FindServiceByName(CONTRACT)]
    answers = {}
    for name, certificate in {
        "users": tls.peer(authority.issue(tmp_path / "users", "users")),
        "posts": tls.peer(authority.issue(tmp_path / "posts", "posts")),
        "foreign": tls.peer(Authority().issue(tmp_path / "foreign", "users")),
        "plaintext": None,
    }.items():
        async with serving(certificate) as address:
            channel = RemoteChannel(address, contracts, gateway, "users")
            answers[name] = await read(channel)
            await channel.close()

    assert answers == {"users": "OK", "posts": REFUSED, "foreign": REFUSED, "plaintext": REFUSED}


async def test_why_a_server_is_not_talked_to_is_told_with_the_setting(tmp_path: Path, authority: Authority) -> None:
    gateway = tls.peer(authority.issue(tmp_path / "gateway", "gateway"))
    contracts = [descriptor_pool.Default().FindServiceByName(CONTRACT)]
    posts = tls.peer(authority.issue(tmp_path / "posts", "posts"))
    expired = authority.issue(tmp_path / "expired", "users", ends=-1)
    # When it started it was valid.
    chain, key = ((expired / name).read_bytes() for name in ("tls.crt", "tls.key"))
    told = {}
    for name, certificate in {
        "posts": posts,
        "expired": tls.Peer(tls.Certificate(chain, key, ("users",)), gateway.authority),
    }.items():
        async with serving(certificate) as address:
            channel = RemoteChannel(address, contracts, gateway, "users")
            with pytest.raises(grpc.aio.AioRpcError) as failed:
                await events_pb2_grpc.EventServiceStub(channel).ReadEvents(READ, timeout=30)
            told[name] = errors.told(failed.value)
            await channel.close()

    for line in told.values():
        assert "INSTA_PEER_TLS" in line
        assert "\n" not in line
    assert "Hostname" in told["posts"]
    assert "certificate has expired" in told["expired"]


async def test_a_service_that_is_refused_is_told_why_and_counted(tmp_path: Path, authority: Authority) -> None:
    metrics = Metrics()
    own = tls.peer(authority.issue(tmp_path / "users", "users"))
    reports = credentials_of(authority.issue(tmp_path / "reports", "reports"))

    async with serving(own, metrics) as address, channel_to("users", address, reports) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await events_pb2_grpc.EventServiceStub(channel).ReadEvents(READ)

    counted = {"method": f"{CONTRACT}/ReadEvents", "code": "PERMISSION_DENIED"}
    assert metrics.registry.get_sample_value("insta_calls_total", counted) == 1
    for named in ("reports", CONTRACT, "INSTA_ALLOWED_CALLERS"):
        assert named in Failure(refused.value).text


async def test_calls_within_the_process_are_from_services() -> None:
    verifier = Issuer().verifier()
    callers = {CONTRACT: frozenset({"gateway"})}
    endpoints = endpoints_of({CONTRACT: Events()}, verifier, Metrics(), None, callers=callers)

    assert await read(LocalChannel(endpoints)) == "OK"


async def test_in_plaintext_whoever_reaches_the_port_counts_as_a_service() -> None:
    async with serving(None) as address:
        assert await answer(address, None) == "OK"


async def test_a_server_that_everybody_may_call_has_no_methods_for_services() -> None:
    with pytest.raises(ValueError, match=r"EventService/ReadEvents"):
        server_of(Metrics())


def test_files_that_cannot_be_used_are_named(tmp_path: Path, authority: Authority) -> None:
    def folder(name: str, **how: Any) -> Path:
        return authority.issue(tmp_path / name, "users", **how)

    foreign = Authority().issue(tmp_path / "foreign", "users")
    wrong: dict[Path, str] = {tmp_path / "nowhere": "ca.crt"}
    for missing in ("ca.crt", "tls.crt", "tls.key"):
        wrong[folder(f"no {missing}")] = missing
        (tmp_path / f"no {missing}" / missing).unlink()
        wrong[folder(f"strange {missing}")] = missing
        (tmp_path / f"strange {missing}" / missing).write_text("strange")
        wrong[folder(f"folder {missing}")] = missing
        (tmp_path / f"folder {missing}" / missing).unlink()
        (tmp_path / f"folder {missing}" / missing).mkdir()
    wrong[folder("expired", ends=-0.01)] = "tls.crt"
    wrong[folder("early", begins=0.5)] = "tls.crt"
    wrong[folder("another key")] = "tls.key"
    (tmp_path / "another key" / "tls.key").write_bytes((foreign / "tls.key").read_bytes())
    wrong[folder("another authority")] = "tls.crt"
    (tmp_path / "another authority" / "ca.crt").write_bytes((foreign / "ca.crt").read_bytes())

    told = {}
    for where in wrong:
        with pytest.raises(tls.TLSError) as refused:
            tls.peer(where)
        told[where] = str(refused.value)

    assert {where: file for where, file in wrong.items() if str(where / file) not in told[where]} == {}


@pytest.mark.parametrize(
    ("mode", "days", "warned_of"),
    [
        (0o600, 15, []),
        (0o400, 15, []),
        (0o640, 15, ["tls.key"]),
        (0o644, 15, ["tls.key"]),
        (0o600, 13, ["tls.crt"]),
    ],
)
def test_a_key_that_others_can_read_and_a_certificate_that_expires_soon_are_warned_of(
    mode: int, days: int, warned_of: list[str], tmp_path: Path, authority: Authority
) -> None:
    folder = authority.issue(tmp_path / "users", "users", ends=days)
    (folder / "tls.key").chmod(mode)

    with capture_logs() as logged:
        tls.peer(folder)

    assert [(line["log_level"], line["file"]) for line in logged] == [
        ("warning", str(folder / file)) for file in warned_of
    ]
