"""What the audit log says, and what no output says: a secret."""

from __future__ import annotations

import asyncio
import base64
import json
import urllib.request
from collections.abc import AsyncIterator, Awaitable, Iterable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
import pytest_asyncio
from grpc_channelz.v1 import channelz_pb2, channelz_pb2_grpc

from insta.gateway.v1 import accounts_pb2, admin_pb2, profiles_pb2
from services.users import keys
from tests import databases
from tests.people import PASSWORD, Failure, People, Person, refused_soon
from tests.running import RunningSuite, insta, running
from tests.users.logins import (
    eventually,
    holder,
    listed,
    log_in,
    people_at,
    people_from,
    users_store,
)

_NEW_PASSWORD = "battery staple correct horse"
_ADDRESS = "127.0.0.6"
_LOGIN = "/insta.users.v1.AuthService/Login"


@pytest.fixture(scope="module", params=["together", "apart"])
def suite(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningSuite]:
    """A suite that logs errors only, and the audit."""
    data = tmp_path_factory.mktemp("audited") / "var"
    with running(request.param, data, INSTA_LOG_LEVEL="error", INSTA_LOGIN_THROTTLE="true") as started:
        yield started


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def people(suite: RunningSuite) -> AsyncIterator[People]:
    async with people_from(_ADDRESS, suite.address) as made:
        yield made


def logged(text: str) -> list[dict[str, Any]]:
    """The lines of the audit."""
    lines = [json.loads(line) for line in text.splitlines() if line.startswith("{")]
    return [line for line in lines if line.get("audit") is True]


async def answered(call: Any) -> str:
    """Make a call. Returns its trace id."""
    try:
        await call
        trailers = await call.trailing_metadata()
    except grpc.aio.AioRpcError as error:
        return Failure(error).trace_id
    return str(dict(trailers)["trace-id"])


async def audited(suite: RunningSuite, call: Any) -> dict[str, Any]:
    """The one line that a call leaves in the audit."""
    trace_id = await answered(call)
    assert len(trace_id) == 32

    async def written() -> list[dict[str, Any]]:
        assert suite.log is not None
        return [line for line in logged(suite.log.read_text()) if line.get("trace_id") == trace_id]

    (line,) = await eventually(written)
    return dict(line)


def login(people: People, name: str, password: str = PASSWORD) -> Any:
    return people.stranger.accounts.Login(accounts_pb2.LoginRequest(login=name, password=password))


def said(line: dict[str, Any]) -> tuple[str, Any, Any, Any]:
    """What was done by whom to whom, and from where."""
    return line["event"], line["caller"], line["user_id"], line["address"]


async def test_a_login_is_audited_with_all_that_an_auditor_asks_for(
    suite: RunningSuite, people: People, ana: Person
) -> None:
    line = await audited(suite, login(people, ana.username))

    assert said(line) == ("login", 0, ana.id, _ADDRESS)
    assert line["session_id"] in {session.id for session in await listed(ana)}
    assert line["method"] == _LOGIN
    assert line["user_agent"].startswith("grpc-python")
    assert line["timestamp"]


async def test_a_login_that_fails_is_audited_without_what_was_typed(
    suite: RunningSuite, people: People, ana: Person
) -> None:
    known = await audited(suite, login(people, ana.username, "a wrong password"))
    unknown = await audited(suite, login(people, "typed by mistake", "another wrong password"))

    assert said(known) == ("login failed", 0, ana.id, _ADDRESS)
    assert said(unknown) == ("login failed", 0, None, _ADDRESS)
    assert suite.log is not None
    written = suite.log.read_text()
    assert "typed by mistake" not in written
    assert "wrong password" not in written


async def test_the_right_password_of_a_deactivated_account_is_audited(
    suite: RunningSuite, people: People, ana: Person
) -> None:
    boss = await people.superuser()
    await boss.admin.SetUserActive(admin_pb2.SetUserActiveRequest(user_id=ana.id, active=False))

    line = await audited(suite, login(people, ana.username))

    assert said(line) == ("login to deactivated account", 0, ana.id, _ADDRESS)


async def test_a_change_that_is_refused_is_not_audited_as_done(
    suite: RunningSuite, people: People, ana: Person
) -> None:
    boss = await people.superuser()
    trace_ids = [
        await answered(call)
        for call in (
            ana.admin.DeleteUser(admin_pb2.DeleteUserRequest(user_id=boss.id)),
            ana.accounts.RevokeSession(accounts_pb2.RevokeSessionRequest(session_id="unknown")),
            boss.admin.SetUserRoles(admin_pb2.SetUserRolesRequest(user_id=2**40, staff=True)),
        )
    ]
    # What is done after them is written after them.
    await audited(suite, login(people, ana.username))

    assert suite.log is not None
    assert [line for line in logged(suite.log.read_text()) if line.get("trace_id") in trace_ids] == []


async def test_who_has_to_wait_is_audited(suite: RunningSuite, people: People, ana: Person) -> None:
    line = {"event": "login failed"}
    while line["event"] == "login failed":
        line = await audited(suite, login(people, ana.username, "a wrong password"))

    assert said(line) == ("login throttled", 0, ana.id, _ADDRESS)


async def test_a_refresh_token_that_comes_twice_is_audited(suite: RunningSuite, people: People, ana: Person) -> None:
    request = accounts_pb2.RefreshSessionRequest(refresh_token=ana.refresh_token)
    first = await audited(suite, people.stranger.accounts.RefreshSession(request))
    line = await audited(suite, people.stranger.accounts.RefreshSession(request))

    assert said(first) == ("session refreshed", 0, ana.id, _ADDRESS)
    assert said(line) == ("refresh token reused", 0, ana.id, _ADDRESS)
    assert line["session_id"] == ana.session_id


async def test_logouts_are_audited(suite: RunningSuite, people: People, ana: Person) -> None:
    other, third = await people.log_in(ana.username), await people.log_in(ana.username)

    request = accounts_pb2.RevokeSessionRequest(session_id=other.session_id)
    revoked = await audited(suite, ana.accounts.RevokeSession(request))
    out = await audited(suite, ana.accounts.Logout(accounts_pb2.LogoutRequest()))
    everywhere = await audited(suite, third.accounts.LogoutEverywhere(accounts_pb2.LogoutEverywhereRequest()))

    assert said(revoked) == ("session revoked", ana.id, ana.id, _ADDRESS)
    assert revoked["session_id"] == other.session_id
    assert said(out) == ("logout", ana.id, ana.id, _ADDRESS)
    assert out["session_id"] == ana.session_id
    assert said(everywhere) == ("logout everywhere", ana.id, ana.id, _ADDRESS)


async def test_changes_of_passwords_are_audited_and_so_are_failures(
    suite: RunningSuite, people: People, ana: Person
) -> None:
    def change(current: str) -> Any:
        request = accounts_pb2.ChangePasswordRequest(current_password=current, new_password=_NEW_PASSWORD)
        return ana.accounts.ChangePassword(request)

    failed = await audited(suite, change("a wrong password"))
    changed = await audited(suite, change(PASSWORD))

    assert said(failed) == ("password change failed", ana.id, ana.id, _ADDRESS)
    assert said(changed) == ("password changed", ana.id, ana.id, _ADDRESS)


async def test_what_staff_do_to_accounts_is_audited(suite: RunningSuite, people: People, ana: Person) -> None:
    boss = await people.superuser()
    roles = await audited(suite, boss.admin.SetUserRoles(admin_pb2.SetUserRolesRequest(user_id=ana.id, staff=True)))
    off = await audited(suite, boss.admin.SetUserActive(admin_pb2.SetUserActiveRequest(user_id=ana.id, active=False)))
    on = await audited(suite, boss.admin.SetUserActive(admin_pb2.SetUserActiveRequest(user_id=ana.id, active=True)))
    revoked = await audited(suite, boss.admin.RevokeUserSessions(admin_pb2.RevokeUserSessionsRequest(user_id=ana.id)))
    deleted = await audited(suite, boss.admin.DeleteUser(admin_pb2.DeleteUserRequest(user_id=ana.id)))

    assert said(roles) == ("roles changed", boss.id, ana.id, _ADDRESS)
    assert (roles["staff"], roles["superuser"]) == (True, False)
    assert said(off) == ("account deactivated", boss.id, ana.id, _ADDRESS)
    assert said(on) == ("account activated", boss.id, ana.id, _ADDRESS)
    assert said(revoked) == ("sessions revoked", boss.id, ana.id, _ADDRESS)
    assert said(deleted) == ("account deleted", boss.id, ana.id, _ADDRESS)


async def test_the_life_of_an_account_is_audited(suite: RunningSuite, people: People) -> None:
    request = accounts_pb2.RegisterRequest(
        username="audited_one", email="audited_one@example.com", password=PASSWORD, first_name="Pat"
    )
    created = await audited(suite, people.stranger.accounts.Register(request))
    pat = await people.log_in("audited_one")
    update = accounts_pb2.UpdateAccountRequest(account=accounts_pb2.Account(email="pat@example.com"))
    update.update_mask.paths.append("email")
    changed = await audited(suite, pat.accounts.UpdateAccount(update))
    failed = await audited(
        suite, pat.accounts.DeleteAccount(accounts_pb2.DeleteAccountRequest(password="a wrong password"))
    )
    deleted = await audited(suite, pat.accounts.DeleteAccount(accounts_pb2.DeleteAccountRequest(password=PASSWORD)))

    assert said(created) == ("account created", 0, pat.id, _ADDRESS)
    assert said(changed) == ("account changed", pat.id, pat.id, _ADDRESS)
    assert changed["fields"] == ["email"]
    assert said(failed) == ("account deletion failed", pat.id, pat.id, _ADDRESS)
    assert said(deleted) == ("account deleted", pat.id, pat.id, _ADDRESS)


def test_what_operators_do_is_audited(suite: RunningSuite) -> None:
    quiet = {**suite.environment, "INSTA_LOG_LEVEL": "error"}
    named = ("--username", "audited_root", "--email", "audited_root@example.com")

    created = insta("superuser", "create", *named, "--password-stdin", environment=quiet, stdin=PASSWORD)
    rotated = insta("keys", "rotate", environment=quiet)
    token = insta("token", "--raw", "audited_root", environment=quiet)

    creation, command = logged(created.stderr)
    (rotation,) = logged(rotated.stderr)
    assert creation["event"] == "account created"
    assert creation["superuser"] is True
    assert command["event"] == "superuser created"
    assert creation["user_id"] == command["user_id"] == int(created.stdout.split()[-1])
    assert rotation["event"] == "signing key rotated"
    assert rotation["kid"] in rotated.stdout
    # Whoever has the token is that person, as far as the suite can tell.
    (issue,) = logged(token.stderr)
    assert issue["event"] == "token issued"
    assert issue["user_id"] == creation["user_id"]
    assert [line["operator_uid"] >= 0 for line in (command, rotation, issue)] == [True] * 3


class Secrets:
    """What must not be told to anybody, in all forms in which it might be."""

    def __init__(self) -> None:
        self._forms: dict[bytes, str] = {}

    def password(self, text: str) -> str:
        """Remember a password, right or wrong. Returns it."""
        self._forms[text.encode()] = f"password {text}"
        return text

    def refresh_token(self, text: str) -> str:
        """Remember a refresh token. Returns it."""
        self._forms[text.encode()] = "refresh token"
        self._remember_bytes(base64.urlsafe_b64decode(text)[16:], "refresh token, its own part")
        return text

    def access_token(self, text: str) -> str:
        """Remember an access token, the signature of which is what makes it one. Returns it."""
        signature = text.rpartition(".")[2]
        self._forms[signature.encode()] = "signature"
        self._remember_bytes(base64.urlsafe_b64decode(signature + "=="), "signature")
        return text

    def key(self, private: bytes) -> None:
        """Remember a private key."""
        self._remember_bytes(private, "private key")

    def found_in(self, output: bytes) -> set[str]:
        """The secrets that some output tells."""
        return {name for form, name in self._forms.items() if form in output}

    @property
    def forms(self) -> Iterable[bytes]:
        return self._forms

    def _remember_bytes(self, raw: bytes, name: str) -> None:
        for form in (
            raw,
            raw.hex().encode(),
            raw.hex().upper().encode(),
            repr(raw)[2:-1].encode(),
            base64.b64encode(raw).rstrip(b"="),
            base64.urlsafe_b64encode(raw).rstrip(b"="),
        ):
            self._forms[form] = name


class Recorder:
    """Makes calls, and keeps what they tell besides what was asked for."""

    def __init__(self) -> None:
        self.told: list[bytes] = []
        self.codes: set[grpc.StatusCode] = set()

    async def __call__(self, call: Any) -> Any:
        """The response of a call, or None if it failed."""
        response, error = None, None
        try:
            response = await call
        except grpc.aio.AioRpcError as failed:
            error = failed
        if error is not None:
            self.codes.add(error.code())
            self.told += [(error.details() or "").encode(), (error.debug_error_string() or "").encode()]
            self.told.append(repr(error).encode())
        trailers = error.trailing_metadata() if error is not None else await call.trailing_metadata()
        leading = error.initial_metadata() if error is not None else await call.initial_metadata()
        for _, value in (*(trailers or ()), *(leading or ())):
            self.told.append(value if isinstance(value, bytes) else str(value).encode())
        return response

    def tell(self, *texts: str | bytes) -> None:
        """Keep some more output."""
        self.told += [text if isinstance(text, bytes) else text.encode() for text in texts]


# Together and with workers the same lines come from fewer processes: that is for the longer tests.
@pytest.mark.parametrize(
    "mode",
    ["apart", pytest.param("together", marks=pytest.mark.soak), pytest.param("workers", marks=pytest.mark.soak)],
)
async def test_no_output_tells_a_secret(mode: str, tmp_path: Path) -> None:
    secrets, record = Secrets(), Recorder()
    with running(mode, tmp_path / "var", INSTA_LOG_LEVEL="debug", INSTA_LOGIN_THROTTLE="true") as suite:
        secrets.password(PASSWORD)
        async with people_at(suite.address) as people:
            await _use_accounts(people, secrets, record)
            await _break_an_account(suite, people, secrets, record)
            await _ask_for_channels(people, record)
        await asyncio.to_thread(_use_commands, suite, secrets, record)
        _remember_keys(tmp_path / "var", secrets)
    assert suite.process is not None
    assert suite.process.stdout is not None
    assert suite.log is not None
    record.tell(suite.process.stdout.read(), suite.log.read_bytes())
    output = b"\n".join(record.told)

    assert secrets.found_in(output) == set()
    # What is no secret of the same calls is found, in each kind of output: a secret would be, too.
    for sign in (
        b'"event": "login failed"',
        b'"event": "call refused"',
        b"Invalid salt",
        b"WRONG_CREDENTIALS",
        b"TOO_MANY_FAILURES",
        b'method="insta.gateway.v1.AccountService/Login"',
        b"Settings, from the environment",
        b"127.0.0.1:",
    ):
        assert sign in output
    assert {code.name for code in record.codes} >= {
        "INVALID_ARGUMENT",
        "UNAUTHENTICATED",
        "PERMISSION_DENIED",
        "RESOURCE_EXHAUSTED",
        "NOT_FOUND",
        "ALREADY_EXISTS",
        "INTERNAL",
    }
    assert all(secrets.found_in(output + form) for form in secrets.forms)


async def _use_accounts(people: People, secrets: Secrets, record: Recorder) -> None:
    """Call all that takes a secret, with good input and with bad."""
    stranger = people.stranger.accounts
    first, second = secrets.password("first secret of ana"), secrets.password("second secret of ana")
    wrong = [
        secrets.password(text) for text in ("a secret that is wrong", "pä\u0308sswörd secret", "s3cr3t\n\t'\"; --")
    ]
    short, common, long = secrets.password("Sh0rt#!"), "password1", secrets.password("very long " * 30)

    def registration(password: str, **fields: str) -> accounts_pb2.RegisterRequest:
        good = {"username": "ana", "email": "ana@example.com", "first_name": "Ana"}
        return accounts_pb2.RegisterRequest(password=password, **{**good, **fields})

    for password in (short, common, long):
        await record(stranger.Register(registration(password)))
    await record(stranger.Register(registration(first, email="nonsense", username="no spaces")))
    await record(stranger.Register(registration(first)))
    await record(stranger.Register(registration(first)))
    await record(stranger.Register(registration(first, username="ben", email="ben@example.com")))

    for name in ("ana", "nobody", first, "ana@example.com"):
        for password in (*wrong, long, ""):
            await record(stranger.Login(accounts_pb2.LoginRequest(login=name, password=password)))
    raw = people.channel.unary_unary("/insta.gateway.v1.AccountService/Login")
    await record(raw(b"\x0a\x03ana\x12\xff" + first.encode(), timeout=30))
    await record(raw(b"\x0a\x03\xff\xfe\xfd\x12" + bytes([len(first)]) + first.encode(), timeout=30))

    # An account that has not failed yet.
    login = await record(stranger.Login(accounts_pb2.LoginRequest(login="ben", password=first)))
    ben = _holder(people, login, secrets)
    following = await record(stranger.RefreshSession(_refreshing(login.refresh_token)))
    ben = _holder(people, following, secrets)
    for text in ("nonsense", following.refresh_token[:-4], following.refresh_token * 2, ben.token[:128]):
        await record(stranger.RefreshSession(_refreshing(text)))
    forged = following.refresh_token[:60] + "AAAA"
    other = _holder(people, await log_in(people, "ben", first), secrets)

    await record(ben.accounts.RevokeSession(accounts_pb2.RevokeSessionRequest(session_id="unknown")))
    await record(ben.accounts.RevokeSession(accounts_pb2.RevokeSessionRequest(session_id=following.refresh_token)))
    await record(ben.admin.ListUsers(admin_pb2.ListUsersRequest(text=first)))
    await record(ben.profiles.GetProfile(profiles_pb2.GetProfileRequest(user_id=2**40)))
    for current, new in ((wrong[0], second), (first, short), (first, common), (long, second), ("", "")):
        change = accounts_pb2.ChangePasswordRequest(current_password=current, new_password=new)
        await record(ben.accounts.ChangePassword(change))
    for password in (long, *wrong * 3):
        await record(ben.accounts.DeleteAccount(accounts_pb2.DeleteAccountRequest(password=password)))

    for token in (ben.token[:-1], ben.token + "A", f"{ben.token}.{ben.token}", ben.token.replace(".", ":"), first):
        await record(Person(people.channel, token=token).accounts.GetAccount(accounts_pb2.GetAccountRequest()))
    for header in (f"Basic {ben.token}", ben.token, f"Bearer  {ben.token}", f"Bearer {'x' * 5000}"):
        await record(_get_account(people, (("authorization", header),)))
    await record(_get_account(people, (("insta-client-agent", ben.token), ("traceparent", ben.token))))

    # Reuse ends the session, and its tokens are refused.
    await record(stranger.RefreshSession(_refreshing(forged)))
    await refused_soon(lambda: ben.post())
    await record(ben.accounts.GetAccount(accounts_pb2.GetAccountRequest()))
    change = accounts_pb2.ChangePasswordRequest(current_password=first, new_password=second)
    await record(other.accounts.ChangePassword(change))
    last = _holder(people, await log_in(people, "ben", second), secrets)
    await record(last.accounts.Logout(accounts_pb2.LogoutRequest()))
    last = _holder(people, await log_in(people, "ben", second), secrets)
    await record(last.accounts.DeleteAccount(accounts_pb2.DeleteAccountRequest(password=second)))


async def _break_an_account(suite: RunningSuite, people: People, secrets: Secrets, record: Recorder) -> None:
    """Call what meets a defect: a password's hash in the database that is none."""
    eve = await people.join(username="eve", password=secrets.password("the secret of eve"))
    secrets.access_token(eve.token)
    with users_store(Path(suite.environment["INSTA_DATA"])) as store:
        broken = databases.sql("UPDATE \"user\" SET password_hash = ? WHERE username = 'eve'")
        store.write_now(lambda db: db.execute_sql(broken, (b"\0",)) and None)

    await record(people.stranger.accounts.Login(accounts_pb2.LoginRequest(login="eve", password="the secret of eve")))
    change = accounts_pb2.ChangePasswordRequest(
        current_password="the secret of eve", new_password=secrets.password("a new secret of eve")
    )
    await record(eve.accounts.ChangePassword(change))
    await record(eve.accounts.DeleteAccount(accounts_pb2.DeleteAccountRequest(password="the secret of eve")))


async def _ask_for_channels(people: People, record: Recorder) -> None:
    """Read what channelz tells staff."""
    boss = await people.superuser()
    channelz = channelz_pb2_grpc.ChannelzStub(boss.channel)
    servers = await record(channelz.GetServers(channelz_pb2.GetServersRequest()))
    channels = await record(channelz.GetTopChannels(channelz_pb2.GetTopChannelsRequest()))
    record.tell(str(servers), str(channels))
    for server in servers.server:
        request = channelz_pb2.GetServerSocketsRequest(server_id=server.ref.server_id)
        sockets = await record(channelz.GetServerSockets(request))
        record.tell(str(sockets))
        for socket in sockets.socket_ref:
            record.tell(
                str(await record(channelz.GetSocket(channelz_pb2.GetSocketRequest(socket_id=socket.socket_id))))
            )


def _use_commands(suite: RunningSuite, secrets: Secrets, record: Recorder) -> None:
    """Run commands that meet secrets and fail, or tell of settings, and read the metrics."""
    token = secrets.access_token(insta("token", "--raw", "eve", environment=suite.environment).stdout.strip())
    wrong = secrets.password("typed at a terminal")
    at = ("--address", suite.address)
    with_token = {**suite.environment, "INSTA_TOKEN": token}
    for environment, command in (
        (with_token, ("--help",)),
        (with_token, ("check", suite.address, "127.0.0.1:1")),
        (with_token, ("call", *at, "AccountService.GetAccount", "unknown=field")),
        (with_token, ("call", *at, "PostService.GetPost", f"post_id={2**40}")),
        (with_token, ("call", *at, "AccountService.ChangePassword", f"current_password={wrong}", "new_password=x")),
        (with_token, ("call", "--address", "127.0.0.1:1", "AccountService.GetAccount")),
        (suite.environment, ("call", *at, "AccountService.Login", "login=eve", f"password={wrong}")),
        (suite.environment, ("call", *at, "AccountService.GetAccount", "--token", token[:-4])),
        (suite.environment, ("keys", "rotate")),
        (suite.environment, ("token", "nobody")),
    ):
        done = insta(*command, environment=environment)
        record.tell(done.stdout, done.stderr)
    named = ("--username", "no spaces", "--email", "nonsense")
    made = insta("superuser", "create", *named, "--password-stdin", environment=suite.environment, stdin=wrong)
    record.tell(made.stdout, made.stderr)
    with urllib.request.urlopen(suite.metrics_url) as metrics:
        record.tell(metrics.read())


def _remember_keys(data: Path, secrets: Secrets) -> None:
    """All private keys of the suite: those that sign tokens, and those of its certificates."""
    with users_store(data) as store:
        for key in store.write_now(keys.published):
            secrets.key(bytes(key.private_bytes))
    for path in data.rglob("*.key"):
        pem = path.read_text()
        secrets.key(base64.b64decode("".join(pem.splitlines()[1:-1])))
        for line in pem.splitlines()[1:-1]:
            secrets.password(line)


def _refreshing(refresh_token: str) -> accounts_pb2.RefreshSessionRequest:
    return accounts_pb2.RefreshSessionRequest(refresh_token=refresh_token)


def _holder(
    people: People, tokens: accounts_pb2.LoginResponse | accounts_pb2.RefreshSessionResponse, secrets: Secrets
) -> Person:
    secrets.access_token(tokens.access_token)
    secrets.refresh_token(tokens.refresh_token)
    return holder(people, tokens)


def _get_account(people: People, metadata: tuple[tuple[str, str], ...]) -> Awaitable[Any]:
    call = people.channel.unary_unary(
        "/insta.gateway.v1.AccountService/GetAccount",
        request_serializer=accounts_pb2.GetAccountRequest.SerializeToString,
        response_deserializer=accounts_pb2.GetAccountResponse.FromString,
    )
    return call(accounts_pb2.GetAccountRequest(), metadata=metadata, timeout=30)
