"""Which service may call which over the network: each proto service behind the gateway, called by everybody."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from google.protobuf import descriptor_pool
from grpc_channelz.v1 import channelz_pb2, channelz_pb2_grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from chassis import tls
from chassis.remote import RemoteChannel
from insta.access.v1 import access_pb2
from insta.posts.v1 import posts_pb2, posts_pb2_grpc
from tests.certificates import Authority, channel_to, credentials_of
from tests.contracts.descriptors import Contracts, access
from tests.people import Failure, failure
from tests.running import RunningSuite, insta_here, running

METHODS = {name: method for name, method in Contracts().methods().items() if not name.startswith("insta.gateway.")}
ALLOWED = {
    "insta.users.v1.UserService": {"gateway", "social"},
    "insta.users.v1.AuthService": {"gateway", "posts", "social"},
    "insta.users.v1.SessionService": {"gateway"},
    "insta.users.v1.EventService": {"gateway", "posts", "social"},
    "insta.posts.v1.PostService": {"gateway", "social"},
    "insta.posts.v1.MediaService": {"gateway"},
    "insta.posts.v1.EventService": {"gateway", "social"},
    "insta.social.v1.FollowService": {"gateway"},
    "insta.social.v1.LikeService": {"gateway"},
    "insta.social.v1.CommentService": {"gateway"},
    "insta.social.v1.StatsService": {"gateway"},
    "insta.social.v1.EventService": set(),
}
# Of the operator's own services, `reports` is named in a setting, and `letters` is not.
REPORTS_MAY_CALL = {"insta.posts.v1.PostService", "insta.users.v1.EventService", "insta.social.v1.EventService"}
CERTIFIED = ("users", "posts", "social", "gateway", "reports", "letters")
NOT_ALLOWED = "PERMISSION_DENIED SERVICE_NOT_ALLOWED"
# Of a connection that did not come about nobody tells a reason.
REFUSED = "UNAVAILABLE "
# What the interceptor says next to callers that it lets in, whose empty requests have no token.
LET_IN = {
    access_pb2.Access.ACCESS_PUBLIC: {"OK", "INVALID_ARGUMENT INVALID_FIELDS"},
    access_pb2.Access.ACCESS_SERVICE: {"OK", "INVALID_ARGUMENT INVALID_FIELDS"},
}
TOKEN_MISSING = {"UNAUTHENTICATED TOKEN_MISSING"}
every_service = pytest.mark.parametrize("service", ALLOWED)


@pytest.fixture(scope="module")
def suite(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningSuite]:
    """A suite whose parts all listen, and two services of the operator's own."""
    setting = ",".join(f"{service}=reports" for service in REPORTS_MAY_CALL)
    data = tmp_path_factory.mktemp("callers") / "var"
    with running("apart", data, superuser=False, INSTA_ALLOWED_CALLERS=setting) as started:
        for name in ("reports", "letters"):
            assert insta_here("tls", "issue", name, environment=started.environment).returncode == 0
        yield started


async def answers(suite: RunningSuite, service: str, credentials: grpc.ChannelCredentials | None) -> dict[str, str]:
    """How calls of all methods of a service end: OK, or the code and the reason."""
    part = service.split(".")[1]
    ended = {}
    async with channel_to(part, suite.addresses[part], credentials) as channel:
        for name in METHODS:
            if name.partition("/")[0] == service:
                try:
                    # No bytes are an empty message of any type.
                    await channel.unary_unary(f"/{name}")(b"", timeout=30)
                    ended[name] = "OK"
                except grpc.aio.AioRpcError as error:
                    failed = Failure(error)
                    ended[name] = f"{failed.code.name} {failed.reason}"
    assert ended
    return ended


def test_every_service_behind_the_gateway_is_in_the_table() -> None:
    assert {name.partition("/")[0] for name in METHODS} == ALLOWED.keys()


@every_service
@pytest.mark.parametrize("caller", CERTIFIED)
async def test_a_service_is_let_in_by_those_that_the_table_or_the_operator_allows(
    service: str, caller: str, suite: RunningSuite
) -> None:
    ended = await answers(suite, service, credentials_of(suite.certificates(caller)))

    if caller in ALLOWED[service] or (caller == "reports" and service in REPORTS_MAY_CALL):
        expected = {name: LET_IN.get(access(METHODS[name]), TOKEN_MISSING) for name in ended}
    else:
        expected = {name: {NOT_ALLOWED} for name in ended}
    assert {name: answer for name, answer in ended.items() if answer not in expected[name]} == {}


@every_service
async def test_who_has_no_certificate_of_the_authority_is_not_answered(
    service: str, suite: RunningSuite, tmp_path: Path
) -> None:
    ca = (suite.certificates("gateway") / "ca.crt").read_bytes()
    stranger = Authority().issue(tmp_path / "gateway", "gateway")
    (stranger / "ca.crt").write_bytes(ca)
    expired = Authority(suite.certificates("ca")).issue(tmp_path / "expired", "gateway", ends=-0.01)
    (expired / "ca.crt").write_bytes(ca)

    for credentials in (
        None,
        grpc.ssl_channel_credentials(ca),
        credentials_of(stranger),
        credentials_of(expired),
    ):
        assert set((await answers(suite, service, credentials)).values()) == {REFUSED}


@pytest.mark.parametrize("part", ["users", "posts", "social"])
async def test_health_is_for_whoever_has_a_certificate_and_channelz_for_staff(part: str, suite: RunningSuite) -> None:
    letters = credentials_of(suite.certificates("letters"))

    async with channel_to(part, suite.addresses[part], letters) as channel:
        checked = await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=30)
        servers = channelz_pb2_grpc.ChannelzStub(channel).GetServers(channelz_pb2.GetServersRequest(), timeout=30)
        refused = await failure(servers)

    assert checked.status == health_pb2.HealthCheckResponse.SERVING
    assert (refused.code, refused.reason) == (grpc.StatusCode.UNAUTHENTICATED, "TOKEN_MISSING")


@pytest.mark.parametrize("there", ["users", "posts", "social"])
async def test_a_part_is_talked_to_only_if_its_certificate_is_for_it(there: str, suite: RunningSuite) -> None:
    gateway = tls.peer(suite.certificates("gateway"))
    contracts = [descriptor_pool.Default().FindServiceByName("insta.posts.v1.PostService")]
    # What the gateway has of the posts service, if somebody else sits at its address.
    channel = RemoteChannel(suite.addresses[there], contracts, gateway, "posts")

    failed = await failure(posts_pb2_grpc.PostServiceStub(channel).GetPost(posts_pb2.GetPostRequest(post_id=1)))
    await channel.close()

    assert f"{failed.code.name} {failed.reason}" == ("UNAUTHENTICATED TOKEN_MISSING" if there == "posts" else REFUSED)
