"""Sessions: how they begin, go on and end."""

from __future__ import annotations

import asyncio
import base64
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from datetime import timedelta
from pathlib import Path

import grpc
import pytest
import pytest_asyncio

from chassis import identity
from chassis.call import Caller
from chassis.errors import Unauthenticated
from chassis.replay import Replies
from chassis.store import Database, Store
from insta.gateway.v1 import accounts_pb2, accounts_pb2_grpc, admin_pb2
from insta.users.v1 import auth_pb2
from services.users import accounts, keys, logins, sessions, tokens
from services.users.auth_servicer import AuthServicer
from services.users.logins import Login
from services.users.password_check import PasswordCheck
from services.users.passwords import Passwords
from services.users.sessions import MOST_PER_USER, RefreshToken
from tests.people import PASSWORD, People, Person, failure, refused_soon
from tests.running import RunningSuite, insta_here
from tests.users.logins import (
    Time,
    account,
    bytes_in,
    claims_of,
    holder,
    listed,
    log_in,
    people_at,
    people_from,
    refresh,
    refused_everywhere,
    users_store,
)

_NEW_PASSWORD = "battery staple correct horse"


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with users_store(tmp_path) as opened:
        yield opened


@pytest.fixture
def time(monkeypatch: pytest.MonkeyPatch) -> Time:
    return Time(monkeypatch)


@pytest_asyncio.fixture
async def others(together: RunningSuite) -> AsyncIterator[People]:
    """People of a suite whose data are at hand."""
    async with people_at(together.address) as made:
        yield made


def begun(store: Store) -> Login:
    """Somebody new who is logged in."""

    def begin(db: Database) -> Login:
        ana = account(db)
        return Login(ana, *sessions.begin(db, ana.id, "phone", "127.0.0.1"))

    return store.write_now(begin)


def refreshed(store: Store, token: RefreshToken) -> Login:
    """The session after a refresh that must work."""
    login = store.write_now(logins.refresh, token, "127.0.0.1")
    assert isinstance(login, Login)
    return login


async def goes_on(people: People, login: accounts_pb2.LoginResponse | accounts_pb2.RefreshSessionResponse) -> None:
    """Both tokens of a session work."""
    await holder(people, login).post()
    await refresh(people, login.refresh_token)


async def refused_refresh(people: People, refresh_token: str) -> tuple[grpc.StatusCode, str]:
    failed = await failure(refresh(people, refresh_token))
    return failed.code, failed.reason


INVALID = (grpc.StatusCode.UNAUTHENTICATED, "REFRESH_TOKEN_INVALID")


async def test_a_login_answers_a_refresh_token_and_when_its_session_ends(people: People, ana: Person) -> None:
    first, second = [await log_in(people, ana.username) for _ in range(2)]

    assert [len(login.refresh_token) for login in (first, second)] == [64, 64]
    assert first.refresh_token != second.refresh_token
    # Not even the part that names the session is shared.
    assert first.refresh_token[:21] != second.refresh_token[:21]
    assert claims_of(first.access_token)["sid"] != claims_of(second.access_token)["sid"]
    lasts = first.session_expire_time.ToDatetime() - first.expire_time.ToDatetime()
    assert lasts + timedelta(minutes=15) == pytest.approx(timedelta(days=30), abs=timedelta(seconds=2))


async def test_a_refresh_answers_the_next_pair_of_tokens(people: People, ana: Person) -> None:
    login = await log_in(people, ana.username)

    following = await refresh(people, login.refresh_token)

    assert following.refresh_token != login.refresh_token
    assert following.access_token != login.access_token
    before, after = claims_of(login.access_token), claims_of(following.access_token)
    assert (before["sid"], before["sub"]) == (after["sid"], after["sub"])
    await holder(people, following).post()
    # The access token of before is good until it expires: calls may be under way with it.
    await holder(people, login).post()


async def test_a_session_goes_on_through_many_refreshes_but_its_end_does_not_move(people: People, ana: Person) -> None:
    login = await log_in(people, ana.username)
    token = login.refresh_token

    for _ in range(20):
        following = await refresh(people, token)
        token = following.refresh_token
        assert following.session_expire_time == login.session_expire_time

    await holder(people, following).post()


def test_a_session_ends_after_30_days_whatever_is_refreshed(store: Store, time: Time) -> None:
    login = begun(store)
    time.pass_(days=15)
    login = refreshed(store, login.refresh_token)
    time.pass_(days=14.99)
    login = refreshed(store, login.refresh_token)

    time.pass_(days=0.02)

    with pytest.raises(Unauthenticated) as refusal:
        store.write_now(logins.refresh, login.refresh_token, "")
    assert refusal.value.reason_name == "REFRESH_TOKEN_INVALID"
    with pytest.raises(Unauthenticated):
        store.write_now(sessions.require, Caller(login.account.id, session_id=login.session.id))
    assert store.write_now(sessions.of_user, login.account.id) == []


def test_an_access_token_never_outlives_its_session(store: Store, time: Time) -> None:
    login = begun(store)
    key = store.write_now(keys.signer)
    assert tokens.issue(key, login.account, login.session).expire_time < login.session.expire_time

    time.pass_(days=30, minutes=-5)
    login = refreshed(store, login.refresh_token)

    issued = tokens.issue(key, login.account, login.session)
    assert issued.expire_time == login.session.expire_time // 1_000_000 * 1_000_000


def test_a_refreshed_token_carries_the_roles_that_the_account_has_now(store: Store) -> None:
    login = begun(store)
    assert claims_of(tokens.issue(store.write_now(keys.signer), login.account, login.session).text)["roles"] == []

    store.write_now(lambda db: db.execute_sql('UPDATE "user" SET staff = TRUE, superuser = TRUE'))
    login = refreshed(store, login.refresh_token)

    issued = tokens.issue(store.write_now(keys.signer), login.account, login.session)
    assert claims_of(issued.text)["roles"] == [identity.ROLE_STAFF, identity.ROLE_SUPERUSER]


async def test_of_50_refreshes_with_one_token_at_once_one_wins_and_the_session_ends(
    suite: RunningSuite, people: People, ana: Person
) -> None:
    login = await log_in(people, ana.username)
    async with AsyncExitStack() as stack:
        # Connections of their own: each may end at another worker.
        crowd = [await stack.enter_async_context(people_at(suite.address)) for _ in range(10)]
        for member in crowd:
            await member.channel.channel_ready()

        answers = await asyncio.gather(
            *(refresh(crowd[number % 10], login.refresh_token) for number in range(50)), return_exceptions=True
        )

        won = [answer for answer in answers if isinstance(answer, accounts_pb2.RefreshSessionResponse)]
        assert len(won) == 1
        lost = [answer for answer in answers if isinstance(answer, grpc.aio.AioRpcError)]
        assert len(lost) == 49
        for error in lost:
            assert await refused_error(error) == INVALID
        assert await refused_refresh(people, won[0].refresh_token) == INVALID
        for member in crowd:
            await refused_everywhere(suite, holder(member, won[0]))
    # It was this session alone.
    await ana.post()


async def refused_error(error: grpc.aio.AioRpcError) -> tuple[grpc.StatusCode, str]:
    async def raising() -> None:
        raise error

    failed = await failure(raising())
    return failed.code, failed.reason


async def test_a_token_that_comes_a_second_time_ends_its_session_and_no_other(
    suite: RunningSuite, people: People, ana: Person, ben: Person
) -> None:
    stolen, own, bens = [await log_in(people, name) for name in (ana.username, ana.username, ben.username)]
    following = await refresh(people, stolen.refresh_token)

    assert await refused_refresh(people, stolen.refresh_token) == INVALID

    assert await refused_refresh(people, following.refresh_token) == INVALID
    await refused_everywhere(suite, holder(people, following))
    await goes_on(people, own)
    await goes_on(people, bens)


async def test_a_token_of_the_session_with_a_made_up_second_part_ends_it(
    suite: RunningSuite, people: People, ana: Person
) -> None:
    login = await log_in(people, ana.username)
    family = base64.urlsafe_b64decode(login.refresh_token)[:16]

    forged = base64.urlsafe_b64encode(family + secrets.token_bytes(32)).decode()

    assert await refused_refresh(people, forged) == INVALID
    assert await refused_refresh(people, login.refresh_token) == INVALID
    await refused_everywhere(suite, holder(people, login))
    await ana.post()


def _made_up(token: str) -> str:
    return secrets.token_urlsafe(48)


def _own_part_alone(token: str) -> str:
    own = base64.urlsafe_b64decode(token)[16:]
    return base64.urlsafe_b64encode(secrets.token_bytes(16) + own).decode()


def _other_alphabet(token: str) -> str:
    changed = token.replace("-", "+").replace("_", "/")
    # One token in ten has none of these characters.
    return changed if changed != token else f"+{token[1:]}"


@pytest.mark.parametrize(
    "change",
    [
        _made_up,
        _own_part_alone,
        lambda token: token[:-1],
        lambda token: token[:-4],
        lambda token: token[:20],
        lambda token: token[4:],
        lambda token: token + "AAAA",
        lambda token: token + token,
        lambda token: token + "=",
        lambda token: token + "\n",
        lambda token: f" {token}",
        lambda token: token.swapcase(),
        _other_alphabet,
        lambda token: "é" + token[1:],
        lambda token: "\N{FULLWIDTH LATIN CAPITAL LETTER A}" + token[1:],
        lambda token: "\0" * 64,
        lambda token: f"Bearer {token}",
        lambda token: "eyJhbGciOiJub25lIn0.e30.",
    ],
    ids=[
        "made up",
        "own part alone",
        "one less",
        "four less",
        "family alone",
        "without its beginning",
        "longer",
        "twice",
        "padded",
        "line break",
        "space",
        "other case",
        "other alphabet",
        "no ASCII",
        "full width",
        "zeros",
        "with a scheme",
        "a JWT",
    ],
)
async def test_what_is_no_refresh_token_is_refused_and_ends_nothing(
    people: People, ana: Person, change: Callable[[str], str]
) -> None:
    login = await log_in(people, ana.username)

    assert await refused_refresh(people, change(login.refresh_token)) == INVALID

    await goes_on(people, login)


@pytest.mark.parametrize("change", [lambda token: "", lambda token: token * 3], ids=["empty", "too long"])
async def test_what_is_no_refresh_token_by_its_length_is_an_invalid_field(
    people: People, ana: Person, change: Callable[[str], str]
) -> None:
    login = await log_in(people, ana.username)

    failed = await failure(refresh(people, change(login.refresh_token)))

    assert (failed.code, failed.fields) == (grpc.StatusCode.INVALID_ARGUMENT, ["refresh_token"])
    await goes_on(people, login)


async def test_an_access_token_refreshes_nothing(people: People, ana: Person) -> None:
    failed = await failure(refresh(people, ana.token))

    assert failed.code in (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.UNAUTHENTICATED)
    await ana.post()


async def test_a_refresh_token_gives_access_to_nothing(people: People, ana: Person) -> None:
    login = await log_in(people, ana.username)

    failed = await failure(Person(people.channel, token=login.refresh_token).post())

    assert (failed.code, failed.reason) == (grpc.StatusCode.UNAUTHENTICATED, "TOKEN_INVALID")


async def test_a_logout_ends_the_session_that_calls_and_no_other(
    suite: RunningSuite, people: People, ana: Person
) -> None:
    one, other = [await log_in(people, ana.username) for _ in range(2)]

    await holder(people, one).accounts.Logout(accounts_pb2.LogoutRequest())

    assert await refused_refresh(people, one.refresh_token) == INVALID
    await refused_everywhere(suite, holder(people, one))
    await goes_on(people, other)


async def test_a_logout_everywhere_ends_all_sessions_of_the_caller(
    suite: RunningSuite, people: People, ana: Person, ben: Person
) -> None:
    first, second = [await log_in(people, ana.username) for _ in range(2)]

    await holder(people, first).accounts.LogoutEverywhere(accounts_pb2.LogoutEverywhereRequest())

    for login in (first, second):
        assert await refused_refresh(people, login.refresh_token) == INVALID
        await refused_everywhere(suite, holder(people, login))
    await refused_everywhere(suite, ana)
    await ben.post()
    await goes_on(people, await log_in(people, ana.username))


async def test_a_person_ends_one_of_their_other_sessions(suite: RunningSuite, people: People, ana: Person) -> None:
    other = await log_in(people, ana.username)

    request = accounts_pb2.RevokeSessionRequest(session_id=claims_of(other.access_token)["sid"])
    await ana.accounts.RevokeSession(request)

    assert await refused_refresh(people, other.refresh_token) == INVALID
    await refused_everywhere(suite, holder(people, other))
    await ana.post()
    again = await failure(ana.accounts.RevokeSession(request))
    assert (again.code, again.reason) == (grpc.StatusCode.NOT_FOUND, "SESSION_NOT_FOUND")


async def test_a_session_of_somebody_else_is_not_found(people: People, ana: Person, ben: Person) -> None:
    login = await log_in(people, ben.username)

    failures = [
        await failure(ana.accounts.RevokeSession(accounts_pb2.RevokeSessionRequest(session_id=session_id)))
        for session_id in (claims_of(login.access_token)["sid"], "unknown", "'; DELETE FROM session; --", "%")
    ]

    assert {(failed.code, failed.reason) for failed in failures} == {(grpc.StatusCode.NOT_FOUND, "SESSION_NOT_FOUND")}
    await goes_on(people, login)
    # Not each database holds such a text.
    no_text = await failure(ana.accounts.RevokeSession(accounts_pb2.RevokeSessionRequest(session_id="a\0b")))
    assert no_text.code is grpc.StatusCode.INVALID_ARGUMENT


async def test_sessions_are_listed_the_last_used_first_and_the_one_that_asks_is_marked(
    people: People, ana: Person, ben: Person
) -> None:
    phone = await log_in(people, ana.username, client_name="Ana's phone")
    await log_in(people, ana.username, client_name="Laptop \N{PERSONAL COMPUTER}")
    before = await listed(holder(people, phone))
    assert [session.client_name for session in before[:2]] == ["Laptop \N{PERSONAL COMPUTER}", "Ana's phone"]

    phone_on = await refresh(people, phone.refresh_token)
    after = await listed(holder(people, phone_on))

    # The first session is that of the fixture, which named no client.
    assert [session.client_name for session in after[:2]] == ["Ana's phone", "Laptop \N{PERSONAL COMPUTER}"]
    assert after[2].client_name.startswith("grpc-python")
    assert [session.current for session in after] == [True, False, False]
    assert [session.current for session in await listed(ana)] == [False, False, True]
    assert after[0].id == claims_of(phone.access_token)["sid"]
    assert after[0].expire_time == phone.session_expire_time
    used_before, used_after = (session.use_time.ToDatetime() for session in (before[1], after[0]))
    assert used_before < used_after
    assert after[0].create_time == before[1].create_time
    assert len(await listed(ben)) == 1


async def test_a_session_shows_the_address_that_it_was_last_used_from(suite: RunningSuite, ana: Person) -> None:
    async with people_from("127.0.0.2", suite.address) as away, people_from("127.0.0.3", suite.address) as at_work:
        login = await log_in(away, ana.username)
        assert {session.address for session in await listed(holder(at_work, login)) if session.current} == {"127.0.0.2"}

        following = await refresh(at_work, login.refresh_token)

        (session,) = [session for session in await listed(holder(away, following)) if session.current]
        assert session.address == "127.0.0.3"


async def test_what_a_client_tells_of_its_address_or_its_identity_is_not_believed(
    suite: RunningSuite, people: People, ana: Person, ben: Person
) -> None:
    forged = (
        ("insta-client-address", "203.0.113.9"),
        ("insta-client-agent", "Forged"),
        ("x-forwarded-for", "203.0.113.9"),
        ("forwarded", "for=203.0.113.9"),
        ("x-real-ip", "203.0.113.9"),
        ("x-user-id", str(ben.id)),
        ("user-id", str(ben.id)),
    )
    async with people_from("127.0.0.2", suite.address) as away:
        stub = accounts_pb2_grpc.AccountServiceStub(away.channel)
        request = accounts_pb2.LoginRequest(login=ana.username, password=PASSWORD)
        login = await stub.Login(request, metadata=forged)
        following = await stub.RefreshSession(
            accounts_pb2.RefreshSessionRequest(refresh_token=login.refresh_token), metadata=forged
        )
        sent = (*forged, ("authorization", f"Bearer {following.access_token}"))
        sessions = (await stub.ListSessions(accounts_pb2.ListSessionsRequest(), metadata=sent)).sessions
        who = (await stub.GetAccount(accounts_pb2.GetAccountRequest(), metadata=sent)).account

    (current,) = [session for session in sessions if session.current]
    assert current.address == "127.0.0.2"
    assert current.client_name.startswith("grpc-python")
    assert who.id == ana.id
    assert len(sessions) == 2


async def test_the_51st_session_ends_the_one_that_was_not_used_for_longest(
    suite: RunningSuite, people: People, ana: Person
) -> None:
    begun = [await log_in(people, ana.username) for _ in range(MOST_PER_USER - 1)]
    assert len(await listed(ana)) == MOST_PER_USER
    # The first of all was used after the second began.
    first = await refresh(people, ana.refresh_token)

    last = await log_in(people, ana.username)

    await refused_everywhere(suite, holder(people, begun[0]))
    left = await listed(holder(people, last))
    assert {session.id for session in left} == {
        claims_of(login.access_token)["sid"] for login in (first, *begun[1:], last)
    }
    await goes_on(people, first)
    await goes_on(people, begun[1])


async def _new_password(boss: Person, person: Person) -> None:
    await person.accounts.ChangePassword(
        accounts_pb2.ChangePasswordRequest(current_password=PASSWORD, new_password=_NEW_PASSWORD)
    )


async def _new_roles(boss: Person, person: Person) -> None:
    await boss.admin.SetUserRoles(admin_pb2.SetUserRolesRequest(user_id=person.id, staff=True))


async def _deactivation(boss: Person, person: Person) -> None:
    await boss.admin.SetUserActive(admin_pb2.SetUserActiveRequest(user_id=person.id, active=False))


async def _own_deletion(boss: Person, person: Person) -> None:
    await person.accounts.DeleteAccount(accounts_pb2.DeleteAccountRequest(password=PASSWORD))


async def _deletion_by_staff(boss: Person, person: Person) -> None:
    await boss.admin.DeleteUser(admin_pb2.DeleteUserRequest(user_id=person.id))


async def _revocation_by_staff(boss: Person, person: Person) -> None:
    await boss.admin.RevokeUserSessions(admin_pb2.RevokeUserSessionsRequest(user_id=person.id))


@pytest.mark.parametrize(
    "end",
    [_new_password, _new_roles, _deactivation, _own_deletion, _deletion_by_staff, _revocation_by_staff],
    ids=lambda end: end.__name__.strip("_").replace("_", " "),
)
async def test_what_ends_all_sessions_of_an_account_is_heard_everywhere(
    suite: RunningSuite,
    people: People,
    ana: Person,
    ben: Person,
    boss: Person,
    end: Callable[[Person, Person], Awaitable[None]],
) -> None:
    login = await log_in(people, ana.username)
    # Whoever verifies tokens has seen it, and remembers that it is good.
    await holder(people, login).post()

    await end(boss, ana)

    assert await refused_refresh(people, login.refresh_token) == INVALID
    for person in (ana, holder(people, login)):
        await refused_everywhere(suite, person)
    await ben.post()
    await boss.account()


async def test_who_has_new_roles_logs_in_with_them(people: People, ana: Person, boss: Person) -> None:
    await boss.admin.SetUserRoles(admin_pb2.SetUserRolesRequest(user_id=ana.id, staff=True))

    login = await log_in(people, ana.username)

    assert claims_of(login.access_token)["roles"] == [identity.ROLE_STAFF]
    assert claims_of((await refresh(people, login.refresh_token)).access_token)["roles"] == [identity.ROLE_STAFF]


async def test_an_account_that_is_activated_again_has_none_of_its_sessions_back(
    suite: RunningSuite, people: People, ana: Person, boss: Person
) -> None:
    login = await log_in(people, ana.username)
    await _deactivation(boss, ana)
    await boss.admin.SetUserActive(admin_pb2.SetUserActiveRequest(user_id=ana.id, active=True))

    assert await refused_refresh(people, login.refresh_token) == INVALID
    await refused_everywhere(suite, ana)
    await goes_on(people, await log_in(people, ana.username))


async def test_staff_end_sessions_of_people_but_not_of_staff(
    suite: RunningSuite, people: People, ana: Person, ben: Person, boss: Person
) -> None:
    await _new_roles(boss, ana)
    staff = await people.log_in(ana.username)

    for privileged in (boss, staff):
        failed = await failure(_revocation_by_staff(staff, privileged))
        assert (failed.code, failed.reason) == (grpc.StatusCode.PERMISSION_DENIED, "SUPERUSER_ONLY")
    await _revocation_by_staff(staff, ben)
    await refused_everywhere(suite, ben)
    await boss.account()
    await staff.post()

    unknown = await failure(staff.admin.RevokeUserSessions(admin_pb2.RevokeUserSessionsRequest(user_id=2**40)))
    assert (unknown.code, unknown.reason) == (grpc.StatusCode.NOT_FOUND, "USER_NOT_FOUND")


async def test_people_end_no_sessions_of_others(ana: Person, ben: Person) -> None:
    failed = await failure(_revocation_by_staff(ana, ben))

    assert (failed.code, failed.reason) == (grpc.StatusCode.PERMISSION_DENIED, "STAFF_ONLY")
    await ben.post()


def test_a_login_under_way_while_the_password_changes_begins_no_session(store: Store) -> None:
    login = begun(store)
    checked = store.write_now(accounts.credentials_by_id, login.account.id)
    assert checked is not None
    caller = Caller(login.account.id, session_id=login.session.id)
    store.write_now(accounts.set_password, caller, checked, b"$2b$04$new")

    with pytest.raises(Unauthenticated) as refusal:
        store.write_now(logins.begin, checked, None, "phone", "")

    assert refusal.value.reason_name == "WRONG_CREDENTIALS"
    # Nor does a hash of the old password take the place of the new one's.
    with pytest.raises(Unauthenticated):
        store.write_now(logins.begin, checked, b"$2b$05$old", "phone", "")
    current = store.write_now(accounts.credentials_by_id, login.account.id)
    assert current is not None
    assert current.password_hash == b"$2b$04$new"
    assert store.write_now(sessions.of_user, login.account.id) == []


async def test_logins_at_once_all_begin_a_session_while_the_hash_of_the_password_is_replaced(store: Store) -> None:
    hashed = await Passwords(4).hash(PASSWORD)
    ana = store.write_now(account, password_hash=hashed)
    costlier = Passwords(5)
    check = PasswordCheck(store, costlier, throttled=True)
    servicer = AuthServicer(store, Replies(store, b"a key of some bytes"), costlier, check)
    request = auth_pb2.LoginRequest(login=ana.username, password=PASSWORD)

    answers = await asyncio.gather(*(servicer.Login(request, None) for _ in range(4)), return_exceptions=True)

    assert [type(answer).__name__ for answer in answers] == ["LoginResponse"] * 4
    replaced = store.write_now(accounts.credentials_by_id, ana.id)
    assert replaced is not None
    assert replaced.password_hash.startswith(b"$2b$05$")


def test_a_login_under_way_while_the_account_is_deleted_begins_no_session(store: Store) -> None:
    ana = store.write_now(account)
    checked = store.write_now(accounts.credentials_by_id, ana.id)
    assert checked is not None
    store.write_now(lambda db: db.execute_sql('DELETE FROM "user"'))

    with pytest.raises(Unauthenticated):
        store.write_now(logins.begin, checked, None, "phone", "")
    assert store.write_now(sessions.of_user, ana.id) == []


async def test_a_token_of_the_operator_is_a_session_that_is_listed_and_ends_with_it(
    together: RunningSuite, others: People
) -> None:
    ana = await others.join()

    first, token = (
        insta_here("token", "--raw", ana.username, environment=together.environment).stdout.strip() for _ in range(2)
    )

    # Commands in a row make no more than one session.
    assert claims_of(first)["sid"] == claims_of(token)["sid"]
    (session,) = [session for session in await listed(ana) if session.client_name == "insta token"]
    assert session.id == claims_of(token)["sid"]
    assert session.address == ""
    lasts = session.expire_time.ToDatetime() - session.use_time.ToDatetime()
    assert lasts == timedelta(seconds=identity.LIFETIME_SECONDS)
    assert claims_of(token)["exp"] <= session.expire_time.ToMicroseconds() / 1e6
    await ana.accounts.RevokeSession(accounts_pb2.RevokeSessionRequest(session_id=session.id))
    failed = await refused_soon(Person(others.channel, token=token).post)
    assert failed.reason == "SESSION_ENDED"


async def test_the_data_folder_holds_no_token(together: RunningSuite, others: People) -> None:
    ana = await others.join()
    first = await log_in(others, ana.username)
    second = await refresh(others, first.refresh_token)
    operators = insta_here("token", "--raw", ana.username, environment=together.environment).stdout.strip()

    secret: list[bytes] = []
    for refresh_token in (first.refresh_token, second.refresh_token):
        decoded = base64.urlsafe_b64decode(refresh_token)
        secret += [refresh_token.encode(), decoded[:16], decoded[16:], decoded.hex().encode()]
    for access_token in (first.access_token, second.access_token, operators):
        signature = access_token.rpartition(".")[2]
        secret += [signature.encode(), base64.urlsafe_b64decode(signature + "==")]
    stored = bytes_in(Path(together.environment["INSTA_DATA"]))

    # What is no secret of the same session is found: it was looked for in the right place.
    assert claims_of(second.access_token)["sid"].encode() in stored
    assert [token for token in secret if token in stored] == []
