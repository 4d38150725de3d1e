"""TLS by the command: `insta tls`, what parts refuse to start with, and a gateway with a certificate."""

from __future__ import annotations

import asyncio
import datetime
import os
import re
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID

from chassis import tls
from insta.gateway.v1 import accounts_pb2, accounts_pb2_grpc
from tests.certificates import Authority, channel_to
from tests.running import MODES, PASSWORD, environment, insta, insta_here, running

PARTS = ("users", "posts", "social", "gateway")
NAME = "insta.example"


def told(*arguments: str, given: Mapping[str, str]) -> str:
    """What a command says. It must succeed."""
    done = insta_here(*arguments, environment=given)
    assert done.returncode == 0, done.stderr
    return done.stdout


def refused(*arguments: str, given: Mapping[str, str]) -> str:
    """The sentence with which a command refuses."""
    starts = arguments[0] in ("up", "serve", "apart")
    done = (insta if starts else insta_here)(*arguments, environment=given)
    assert done.returncode == 1, done
    assert done.stderr.startswith("Error: ")
    assert "Traceback" not in done.stderr
    return done.stderr


def certificate(file: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificate(file.read_bytes())


def contents(folder: Path) -> dict[str, bytes]:
    """The files in a folder and below."""
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def days(one: x509.Certificate) -> float:
    """How long a certificate is still valid."""
    return (one.not_valid_after_utc - datetime.datetime.now(datetime.UTC)) / datetime.timedelta(days=1)


def let_expire(folder: Path, part: str, in_days: float) -> None:
    """Replace a certificate by one of the same authority that is valid for less."""
    key = load_pem_private_key((folder / part / "tls.key").read_bytes(), password=None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    issued = Authority(folder / "ca").sign([x509.DNSName(part)], key, ends=in_days)
    (folder / part / "tls.crt").write_bytes(issued)


@pytest.fixture
def given(tmp_path: Path) -> dict[str, str]:
    return environment(tmp_path)


@pytest.fixture
def made(tmp_path: Path, given: dict[str, str]) -> Path:
    """A folder of certificates."""
    told("tls", "init", given=given)
    return tmp_path / "tls"


def test_every_part_gets_a_folder_that_no_one_else_can_read(made: Path) -> None:
    private = {
        "ca/ca.crt",
        "ca/ca.key",
        *(f"{part}/{file}" for part in PARTS for file in ("ca.crt", "tls.crt", "tls.key")),
    }

    assert contents(made).keys() == private
    assert {file.stat().st_mode & 0o777 for file in made.rglob("*") if file.is_file()} == {0o600}
    assert {folder.stat().st_mode & 0o777 for folder in (made, *made.iterdir())} == {0o700}


def test_a_certificate_is_for_one_name_for_servers_and_clients_and_for_a_year(made: Path) -> None:
    serials = set()
    for part in PARTS:
        one = certificate(made / part / "tls.crt")
        extensions = one.extensions
        usage = extensions.get_extension_for_class(x509.KeyUsage).value
        serials.add(one.serial_number)
        assert tls.peer(made / part).certificate.names == (part,)
        assert list(extensions.get_extension_for_class(x509.SubjectAlternativeName).value) == [x509.DNSName(part)]
        assert set(extensions.get_extension_for_class(x509.ExtendedKeyUsage).value) == {
            ExtendedKeyUsageOID.SERVER_AUTH,
            ExtendedKeyUsageOID.CLIENT_AUTH,
        }
        assert not extensions.get_extension_for_class(x509.BasicConstraints).value.ca
        assert (usage.digital_signature, usage.key_cert_sign) == (True, False)
        assert 364 < days(one) <= 365
        assert isinstance(one.public_key(), ec.EllipticCurvePublicKey)
    assert len(serials) == len(PARTS)


def test_the_authority_issues_for_ten_years_and_no_other_authorities(made: Path) -> None:
    authority = certificate(made / "ca" / "ca.crt")
    constraints = authority.extensions.get_extension_for_class(x509.BasicConstraints)
    usage = authority.extensions.get_extension_for_class(x509.KeyUsage).value

    assert (constraints.critical, constraints.value.ca, constraints.value.path_length) == (True, True, 0)
    assert (usage.key_cert_sign, usage.digital_signature) == (True, False)
    assert 3649 < days(authority) <= 3650


def test_the_command_tells_what_it_made_and_what_to_do(tmp_path: Path, given: dict[str, str]) -> None:
    said = told("tls", "init", "--folder", str(tmp_path / "elsewhere"), given=given)

    for part in ("ca", *PARTS):
        assert re.search(rf"{tmp_path}/elsewhere/{part}: made, valid until ", said)
    assert "INSTA_PEER_TLS=" in said


def test_what_is_there_and_valid_is_kept(made: Path, given: dict[str, str]) -> None:
    before = contents(made)

    said = told("tls", "init", given=given)

    assert contents(made) == before
    assert len(re.findall("kept, valid until", said)) == 1 + len(PARTS)


@pytest.mark.parametrize(("in_days", "done"), [(29, "renewed"), (-1, "renewed"), (31, "kept")])
def test_what_expires_within_a_month_is_renewed(in_days: int, done: str, made: Path, given: dict[str, str]) -> None:
    let_expire(made, "posts", in_days)
    before = contents(made)

    said = told("tls", "init", given=given)

    after = contents(made)
    changed = {name for name in after if after[name] != before[name]}
    assert changed == ({"posts/tls.crt"} if done == "renewed" else set())
    assert f"posts: {done}, " in said
    assert tls.peer(made / "posts").certificate.names == ("posts",)


@pytest.mark.parametrize(
    "lost",
    ["users/tls.crt", "users/tls.key", "users/ca.crt", "users", "ca/ca.crt users posts social gateway"],
)
def test_what_an_interruption_left_out_is_completed(lost: str, made: Path, given: dict[str, str]) -> None:
    for path in lost.split():
        for file in [made / path] if (made / path).is_file() else list((made / path).iterdir()):
            file.rename(f"{file}.new").write_text("half of")
    before = contents(made)

    told("tls", "init", given=given)

    assert tls.peer(made / "users").certificate.names == ("users",)
    kept = {name for name in before if contents(made).get(name) == before[name]}
    assert {"ca/ca.key"} <= kept
    assert not list(made.rglob("*.new"))


def test_a_key_that_is_not_of_the_certificate_gets_one(made: Path, given: dict[str, str], tmp_path: Path) -> None:
    other = Authority().issue(tmp_path / "other", "users")
    (made / "users" / "tls.key").write_bytes((other / "tls.key").read_bytes())

    told("tls", "init", given=given)

    assert tls.peer(made / "users").certificate.key == (other / "tls.key").read_bytes()


def test_several_at_once_make_one_authority(tmp_path: Path, given: dict[str, str]) -> None:
    with ThreadPoolExecutor(4) as pool:
        done = list(pool.map(lambda _: insta("tls", "init", environment=given), range(4)))

    assert [one.returncode for one in done] == [0] * 4, done
    assert sum("ca: made" in one.stdout for one in done) == 1
    authority = (tmp_path / "tls" / "ca" / "ca.crt").read_bytes()
    assert {tls.peer(tmp_path / "tls" / part).authority for part in PARTS} == {authority}


def test_the_certificates_of_another_authority_are_left_alone(
    made: Path, given: dict[str, str], tmp_path: Path
) -> None:
    other = Authority().issue(tmp_path / "other", "users")
    (made / "users" / "ca.crt").write_bytes((other / "ca.crt").read_bytes())
    before = contents(made)

    sentence = refused("tls", "init", given=given)

    assert str(made / "users" / "ca.crt") in sentence
    assert contents(made) == before


def test_without_the_key_of_the_authority_nothing_is_issued_and_what_is_there_is_kept(
    made: Path, given: dict[str, str]
) -> None:
    (made / "ca" / "ca.key").unlink()

    told("tls", "init", given=given)
    sentence = refused("tls", "issue", "reports", given=given)

    assert str(made / "ca" / "ca.key") in sentence


def test_an_authority_that_has_expired_is_not_replaced(made: Path, given: dict[str, str]) -> None:
    authority = Authority(made / "ca")
    expired = authority.sign([], authority.key, ends=-1)
    (made / "ca" / "ca.crt").write_bytes(expired)

    sentence = refused("tls", "init", given=given)

    assert str(made / "ca" / "ca.crt") in sentence
    assert (made / "ca" / "ca.crt").read_bytes() == expired


def test_a_folder_that_cannot_be_is_told_in_a_sentence(tmp_path: Path, given: dict[str, str]) -> None:
    (tmp_path / "file").touch()

    assert str(tmp_path / "file") in refused("tls", "init", "--folder", str(tmp_path / "file" / "tls"), given=given)


def test_a_service_of_the_operators_own_gets_a_certificate(tmp_path: Path, given: dict[str, str]) -> None:
    said = told("tls", "issue", "reports", given=given)

    assert tls.peer(tmp_path / "tls" / "reports").certificate.names == ("reports",)
    assert "INSTA_ALLOWED_CALLERS=" in said
    assert "reports: kept" in told("tls", "issue", "reports", given=given)


@pytest.mark.parametrize(
    "name", [*PARTS, "ca", "", ".", "..", "../x", "a/b", "Reports", "1st", "-a", "a-", "a.b", "a_b", "*", "é", "a" * 64]
)
def test_what_is_no_name_of_a_service_gets_no_certificate(name: str, tmp_path: Path, given: dict[str, str]) -> None:
    done = insta_here("tls", "issue", "--", name, environment=given)

    assert done.returncode == 1
    assert repr(name) in done.stderr or name in done.stderr
    assert not (tmp_path / "tls").exists()


@pytest.mark.parametrize("part", PARTS)
def test_a_part_that_runs_apart_starts_with_certificates_only(part: str, given: dict[str, str]) -> None:
    sentence = refused("serve", part, given=given)

    for named in ("insta tls init", "INSTA_PEER_TLS", "INSTA_INSECURE_PLAINTEXT", "--insecure-plaintext"):
        assert named in sentence


def test_a_part_starts_with_its_own_certificate_only(made: Path, given: dict[str, str], tmp_path: Path) -> None:
    let_expire(made, "social", -1)
    (made / "gateway" / "tls.key").unlink()
    sentences = {
        folder: refused("serve", "users", given={**given, "INSTA_PEER_TLS": str(folder)})
        for folder in (made / "posts", made / "social", made / "gateway", made, tmp_path / "nowhere")
    }

    for folder, sentence in sentences.items():
        assert f"INSTA_PEER_TLS={folder}" in sentence
    assert str(made / "social" / "tls.crt") in sentences[made / "social"]
    assert str(made / "gateway" / "tls.key") in sentences[made / "gateway"]


def test_all_parts_apart_renew_their_certificates_when_they_start(made: Path, tmp_path: Path) -> None:
    for part in PARTS:
        let_expire(made, part, 7)

    with running("apart", tmp_path, superuser=False) as suite:
        checked = told("check", *PARTS, given={**suite.environment, **addresses(suite.addresses)})

    assert {round(days(certificate(made / part / "tls.crt"))) for part in PARTS} == {365}
    assert "insta.posts.v1.PostService" in checked


def addresses(parts: Mapping[str, str]) -> dict[str, str]:
    """The settings that name where parts are."""
    variables = {part: f"INSTA_{part.upper()}_ADDRESS" for part in parts}
    variables["gateway"] = "INSTA_LISTEN"
    return {variables[part]: address for part, address in parts.items()}


def test_all_parts_apart_take_the_certificates_in_a_folder_that_is_named(tmp_path: Path) -> None:
    own = tmp_path / "own"
    authority = Authority()
    for part in PARTS:
        authority.issue(own / part, part)
    before = contents(own)

    with running("apart", tmp_path / "var", superuser=False, INSTA_PEER_TLS=str(own)) as suite:
        given = {**suite.environment, **addresses(suite.addresses), "INSTA_PEER_TLS": str(own / "social")}
        assert "SERVING" in told("check", "posts", given=given)

    assert contents(own) == before
    assert not (tmp_path / "var" / "tls").exists()


def test_a_part_is_called_by_its_name_with_the_certificate_that_is_set(tmp_path: Path) -> None:
    with running("apart", tmp_path, superuser=False) as suite:
        given = {**suite.environment, **addresses(suite.addresses)}
        arguments = ("call", "--address", "users", "AuthService.GetKeySet")

        assert '"kid"' in told(*arguments, given=given)
        wrong = insta_here(*arguments, environment={**given, "INSTA_PEER_TLS": str(suite.certificates("users"))})
        unknown = insta_here("check", suite.addresses["users"], environment=given)

    assert "SERVICE_NOT_ALLOWED" in wrong.stderr
    assert unknown.returncode == 1
    assert "TLS" in unknown.stderr


@pytest.fixture(scope="module")
def public(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a certificate for the gateway, with the authority that its clients trust."""
    return Authority().issue(tmp_path_factory.mktemp("public") / "tls", NAME)


@pytest.fixture
def settings_of_public(public: Path) -> dict[str, str]:
    return {"INSTA_TLS_CERTIFICATE": str(public / "tls.crt"), "INSTA_TLS_KEY": str(public / "tls.key")}


@pytest.mark.parametrize("mode", MODES)
async def test_a_gateway_with_a_certificate_serves_tls_beyond_this_machine(
    mode: str, public: Path, settings_of_public: dict[str, str], tmp_path: Path
) -> None:
    trusting = grpc.ssl_channel_credentials((public / "ca.crt").read_bytes())
    login = accounts_pb2.LoginRequest(login="boss", password=PASSWORD)
    with running(mode, tmp_path, INSTA_LISTEN="0.0.0.0:0", **settings_of_public) as suite:
        address = suite.address.replace("0.0.0.0", "127.0.0.1")
        answers = []
        for name, credentials in ((NAME, trusting), ("other.example", trusting), (NAME, None)):
            async with channel_to(name, address, credentials) as channel:
                try:
                    await accounts_pb2_grpc.AccountServiceStub(channel).Login(login, timeout=30)
                    answers.append("OK")
                except grpc.aio.AioRpcError as error:
                    answers.append(error.code().name)
        invitation = re.search(r"Try:\n(.*)", suite.said)
        assert invitation is not None
        tools = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
        tried = await asyncio.create_subprocess_shell(invitation[1], stdout=asyncio.subprocess.PIPE, env=tools)
        printed, _ = await tried.communicate()

    assert answers == ["OK", "UNAVAILABLE", "UNAVAILABLE"]
    assert b'"username": "ana"' in printed


def test_commands_reach_a_gateway_that_serves_tls(
    public: Path, settings_of_public: dict[str, str], tmp_path: Path
) -> None:
    own = Authority().issue_for(tmp_path / "own", [x509.DNSName("localhost")])
    with running(
        "together", tmp_path / "var", INSTA_TLS_CERTIFICATE=str(own / "tls.crt"), INSTA_TLS_KEY=str(own / "tls.key")
    ) as suite:
        address = suite.address.replace("127.0.0.1", "localhost")
        there = {**suite.environment, "INSTA_LISTEN": suite.address}
        elsewhere = environment(tmp_path / "elsewhere")

        assert "SERVING" in told("check", given=there)
        assert "SERVING" in told("check", address, "--tls-ca", str(own / "ca.crt"), given=elsewhere)
        assert "GetProfile" in told(
            "call", "--address", address, given={**elsewhere, "INSTA_TLS_CA": str(own / "ca.crt")}
        )
        distrusting = insta_here("check", address, "--tls-ca", str(public / "ca.crt"), environment=elsewhere)
        plaintext = insta_here("check", address, environment=elsewhere)

    assert distrusting.returncode == plaintext.returncode == 1
    assert "NO ANSWER" in distrusting.stdout
    assert "NO ANSWER" in plaintext.stdout


@pytest.mark.parametrize("command", ["up", "serve gateway", pytest.param("up --workers 2", marks=pytest.mark.soak)])
def test_a_certificate_that_cannot_be_used_is_told_in_a_sentence(
    command: str, made: Path, settings_of_public: dict[str, str], given: dict[str, str], tmp_path: Path
) -> None:
    expired = Authority().issue(tmp_path / "expired", NAME, ends=-1)
    apart = {**given, "INSTA_PEER_TLS": str(made / "gateway")}
    wrong = (
        {"INSTA_TLS_KEY": settings_of_public["INSTA_TLS_KEY"]},
        {"INSTA_TLS_CERTIFICATE": settings_of_public["INSTA_TLS_CERTIFICATE"]},
        {**settings_of_public, "INSTA_TLS_KEY": str(expired / "tls.key")},
        {**settings_of_public, "INSTA_TLS_CERTIFICATE": str(tmp_path / "nowhere")},
        {"INSTA_TLS_CERTIFICATE": str(expired / "tls.crt"), "INSTA_TLS_KEY": str(expired / "tls.key")},
    )

    sentences = [refused(*command.split(), given={**apart, **settings}) for settings in wrong]

    assert all("INSTA_TLS_CERTIFICATE" in sentence and "INSTA_TLS_KEY" in sentence for sentence in sentences)
    assert str(expired / "tls.crt") in sentences[-1]


def test_metrics_stay_on_this_machine_whatever_the_gateway_serves(
    settings_of_public: dict[str, str], tmp_path: Path
) -> None:
    given = environment(tmp_path, INSTA_METRICS_LISTEN="0.0.0.0:0", **settings_of_public)

    assert "INSTA_INSECURE_PLAINTEXT" in refused("up", given=given)
