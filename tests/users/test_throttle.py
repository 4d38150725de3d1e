"""Wrong passwords: who has to wait for the next try, how long, and who has not."""

from __future__ import annotations

import asyncio
import collections
import itertools
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import grpc
import pytest
import pytest_asyncio

from chassis.errors import ResourceExhausted
from chassis.store import Store
from insta.gateway.v1 import accounts_pb2
from services.users import throttle
from services.users.accounts import Credentials
from services.users.password_check import PasswordCheck
from services.users.passwords import Passwords
from services.users.throttle import Subject
from tests.people import Failure, People, Person, failure
from tests.running import MODES, PASSWORD, RunningSuite, running
from tests.users.logins import Time, bytes_in, holder, log_in, people_at, people_from, refresh, users_store

_NEW_PASSWORD = "battery staple correct horse"
# So many wrong passwords make nobody wait.
_FREE = 5
_ANA = throttle.login("ana")
_numbers = itertools.count()
_addresses = (f"127.1.0.{number}" for number in itertools.count(1))
_ADDRESS = throttle.address("192.0.2.1")

WRONG = (grpc.StatusCode.UNAUTHENTICATED, "WRONG_CREDENTIALS")
TOO_MANY = (grpc.StatusCode.RESOURCE_EXHAUSTED, "TOO_MANY_FAILURES")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with users_store(tmp_path) as opened:
        yield opened


@pytest.fixture
def time(monkeypatch: pytest.MonkeyPatch) -> Time:
    return Time(monkeypatch)


@pytest.fixture(scope="module", params=MODES)
def suite(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningSuite]:
    """A suite that lets wrong passwords wait."""
    data = tmp_path_factory.mktemp("throttled") / "var"
    with running(request.param, data, INSTA_LOGIN_THROTTLE="true", INSTA_TRUSTED_PROXIES="127.2.0.0/16") as started:
        yield started


@pytest_asyncio.fixture
async def people(suite: RunningSuite) -> AsyncIterator[People]:
    """People from an address that no other test uses: failures are counted of it, too."""
    async with people_from(next(_addresses), suite.address) as made:
        yield made


async def wrong(people: People, login: str, password: str = "wrong") -> Failure:
    """A login that fails."""
    return await failure(log_in(people, login, password))


async def throttled(people: People, login: str) -> Failure:
    """The failure of the first login that has to wait."""
    for _ in range(_FREE + 1):
        failed = await wrong(people, login)
        assert (failed.code, failed.reason) == WRONG
    # On a busy machine the first wait may have passed already; the next is longer.
    while (failed.code, failed.reason) == WRONG:
        failed = await wrong(people, login)
    assert (failed.code, failed.reason) == TOO_MANY
    assert failed.retry_after is not None
    return failed


def tried(store: Store, *subjects: Subject) -> float:
    """Fail once. How many seconds to wait before; 0: the try was allowed."""
    return store.write_now(throttle.begin, subjects)


def fail(store: Store, subject: Subject, times: int) -> None:
    """Fail as often as nobody has to wait."""
    for _ in range(times):
        assert tried(store, subject) == 0.0


async def test_wrong_passwords_make_the_next_try_wait_and_say_how_long(people: People, ana: Person) -> None:
    refused = await throttled(people, ana.username)

    assert refused.retry_after is not None
    assert 0 < refused.retry_after <= 4


async def test_the_right_password_has_to_wait_as_well(people: People, ana: Person) -> None:
    await throttled(people, ana.username)

    refused = await wrong(people, ana.username, PASSWORD)

    assert (refused.code, refused.reason) == TOO_MANY


async def test_who_waited_gets_in_and_is_forgiven(people: People, ana: Person) -> None:
    refused = await throttled(people, ana.username)

    assert refused.retry_after is not None
    # As long as was told, and no longer.
    await asyncio.sleep(refused.retry_after)
    await log_in(people, ana.username)

    for _ in range(_FREE):
        failed = await wrong(people, ana.username)
        assert (failed.code, failed.reason) == WRONG


async def test_an_unknown_name_waits_exactly_as_a_known_one(people: People, ana: Person) -> None:
    known, unknown = await throttled(people, ana.username), await throttled(people, f"{ana.username}_nobody")
    by_address = await throttled(people, f"{ana.username}.nobody@example.com")

    for failed in (known, unknown, by_address):
        assert (failed.code, failed.reason, failed.domain) == (known.code, known.reason, known.domain)
        assert re.sub("[0-9]+", "", failed.text) == re.sub("[0-9]+", "", known.text)
        assert failed.retry_after is not None
        assert 0 < failed.retry_after <= 4


async def test_a_name_counts_in_any_case_and_apart_from_the_address_of_the_account(people: People, ana: Person) -> None:
    names = [ana.username, ana.username.upper(), ana.username.title()]
    for number in range(_FREE + 1):
        failed = await wrong(people, names[number % 3])
        assert (failed.code, failed.reason) == WRONG

    for name in names:
        failed = await wrong(people, name)
        assert (failed.code, failed.reason) == TOO_MANY
    # One count for both would tell which address belongs to which name.
    failed = await wrong(people, f"{ana.username}@example.com")
    assert (failed.code, failed.reason) == WRONG


async def test_an_unknown_name_counts_in_any_case(people: People, ana: Person) -> None:
    name = f"{ana.username}_x"
    await throttled(people, name)

    failed = await wrong(people, name.upper())

    assert (failed.code, failed.reason) == TOO_MANY


async def test_nobody_is_locked_out_of_a_session_while_the_account_waits(people: People, ana: Person) -> None:
    login = await log_in(people, ana.username)
    await throttled(people, ana.username)

    following = await refresh(people, login.refresh_token)
    await holder(people, following).post()
    await holder(people, following).accounts.ChangePassword(
        accounts_pb2.ChangePasswordRequest(current_password=PASSWORD, new_password=_NEW_PASSWORD)
    )


async def _change_password(person: Person, current: str) -> object:
    request = accounts_pb2.ChangePasswordRequest(current_password=current, new_password=_NEW_PASSWORD)
    return await person.accounts.ChangePassword(request)


async def _delete_account(person: Person, current: str) -> object:
    return await person.accounts.DeleteAccount(accounts_pb2.DeleteAccountRequest(password=current))


async def test_confirmations_with_wrong_passwords_wait_in_their_session_and_in_no_other(
    people: People, ana: Person
) -> None:
    other = await people.log_in(ana.username)
    for number in range(_FREE + 1):
        confirm = (_change_password, _delete_account)[number % 2]
        failed = await failure(confirm(ana, "wrong"))
        assert (failed.code, failed.reason) == (grpc.StatusCode.PERMISSION_DENIED, "WRONG_PASSWORD")

    for confirm in (_change_password, _delete_account):
        for password in ("wrong", PASSWORD):
            failed = await failure(confirm(ana, password))
            assert (failed.code, failed.reason) == TOO_MANY
            assert failed.retry_after is not None

    # The account itself waits for nothing, and its password was not changed.
    await log_in(people, ana.username)
    failed = await failure(_change_password(other, "wrong"))
    assert failed.reason == "WRONG_PASSWORD"
    await _change_password(other, PASSWORD)


async def test_50_wrong_logins_at_once_check_no_more_passwords_than_one_by_one(
    suite: RunningSuite, ana: Person
) -> None:
    async with AsyncExitStack() as stack:
        # Each connection may end at another worker.
        crowd = [await stack.enter_async_context(people_from(next(_addresses), suite.address)) for _ in range(10)]
        for member in crowd:
            await member.channel.channel_ready()
        failures = await asyncio.gather(*(wrong(crowd[number % 10], ana.username) for number in range(50)))

    answers = collections.Counter((failed.code, failed.reason) for failed in failures)
    assert set(answers) == {WRONG, TOO_MANY}
    # One more if a second passed meanwhile.
    assert answers[WRONG] in (_FREE + 1, _FREE + 2)


async def test_many_failures_from_one_address_make_it_wait_and_no_other(suite: RunningSuite, people: People) -> None:
    async with people_from(next(_addresses), suite.address) as crowd:
        failures = [await wrong(crowd, f"nobody{number}") for number in range(throttle.ADDRESS.free + 20)]
        answers = collections.Counter((failed.code, failed.reason) for failed in failures)
        assert set(answers) == {WRONG, TOO_MANY}
        # Some leak away meanwhile, or a second passes.
        assert throttle.ADDRESS.free < answers[WRONG] < throttle.ADDRESS.free + 20

        ana = await people.join()
        # A wait may have ended meanwhile: the next try begins another.
        await wrong(crowd, "nobody")
        failed = await wrong(crowd, ana.username, PASSWORD)
        assert (failed.code, failed.reason) == TOO_MANY
    await log_in(people, ana.username)


async def test_what_a_client_tells_of_its_address_does_not_spare_it_the_wait(suite: RunningSuite) -> None:
    async with people_from(next(_addresses), suite.address) as crowd:
        stub = _login(crowd)
        failures = []
        for number in range(throttle.ADDRESS.free + 20):
            request = accounts_pb2.LoginRequest(login=f"none{number}", password="wrong")
            forged = f"198.51.100.{number}"
            metadata = (("insta-client-address", forged), ("x-forwarded-for", forged), ("x-real-ip", forged))
            failures.append(await failure(stub(request, metadata=metadata)))

    assert TOO_MANY in {(failed.code, failed.reason) for failed in failures}


async def test_clients_behind_a_proxy_that_is_trusted_wait_each_for_itself(suite: RunningSuite) -> None:
    async with people_from("127.2.0.1", suite.address) as crowd:
        stub = _login(crowd)

        async def failed(client: str) -> Failure:
            request = accounts_pb2.LoginRequest(login=f"none{next(_numbers)}", password="wrong")
            # On the left is what the client told the proxy.
            return await failure(stub(request, metadata=(("x-forwarded-for", f"203.0.113.99, {client}"),)))

        guesses = [await failed("203.0.113.1") for _ in range(throttle.ADDRESS.free + 20)]
        other = await failed("203.0.113.2")

    assert TOO_MANY in {(guess.code, guess.reason) for guess in guesses}
    assert (other.code, other.reason) == WRONG


async def test_failures_survive_a_restart(tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        with running("together", tmp_path / "var", INSTA_LOGIN_THROTTLE="true") as suite:
            people = await stack.enter_async_context(people_at(suite.address))
            ana = await people.join()
            await throttled(people, ana.username)

        with running("together", tmp_path / "var", INSTA_LOGIN_THROTTLE="true") as suite:
            people = await stack.enter_async_context(people_at(suite.address))
            # One more makes wait again, and not the sixth from now.
            answers = [await wrong(people, ana.username) for _ in range(_FREE)]

    assert TOO_MANY in {(failed.code, failed.reason) for failed in answers}


async def test_what_was_typed_is_not_stored(tmp_path: Path) -> None:
    # People type passwords where names belong.
    typed = "my secret pass phrase"
    with running("together", tmp_path / "var", INSTA_LOGIN_THROTTLE="true") as suite:
        async with people_at(suite.address) as people:
            await wrong(people, typed, "another secret")
            await throttled(people, "somebody unknown")
        with users_store(tmp_path / "var") as store:
            assert store.write_now(lambda db: db.execute_sql("SELECT count(*) FROM throttle").fetchone()) == (3,)
        stored = bytes_in(tmp_path / "var")

    assert b"boss@example.com" in stored
    for text in (typed, "another secret", "somebody unknown"):
        assert text.encode() not in stored


def test_five_failures_are_free_and_each_more_doubles_the_wait_up_to_15_minutes(store: Store, time: Time) -> None:
    fail(store, _ANA, _FREE + 1)

    waits = []
    for _ in range(14):
        waits.append(tried(store, _ANA))
        time.pass_(seconds=waits[-1])
        fail(store, _ANA, 1)

    doubling = [float(2**number) for number in range(9)]
    assert waits[:9] == pytest.approx(doubling, abs=0.2)
    assert sorted(waits) == pytest.approx(waits, abs=0.2)
    assert max(waits) <= 15 * 60
    assert waits[-1] > 8 * 60


def test_an_account_takes_some_100_guesses_a_day(store: Store, time: Time) -> None:
    allowed = 0
    passed = 0.0
    while passed < 2 * 24 * 3600:
        wait = tried(store, _ANA)
        allowed += not wait
        time.pass_(seconds=wait)
        passed += wait

    assert 150 < allowed < 240


def test_a_try_that_has_to_wait_is_not_counted(store: Store) -> None:
    fail(store, _ANA, _FREE + 1)

    assert all(0 < tried(store, _ANA) <= 1 for _ in range(20))


def test_a_failure_is_forgotten_in_15_minutes(store: Store, time: Time) -> None:
    fail(store, _ANA, _FREE)
    time.pass_(minutes=16)
    fail(store, _ANA, 2)
    assert tried(store, _ANA) > 0

    time.pass_(minutes=16 * (_FREE + 1))

    fail(store, _ANA, _FREE + 1)
    assert tried(store, _ANA) > 0


def test_failures_of_an_address_are_free_up_to_100_and_leak_away(store: Store, time: Time) -> None:
    rule = throttle.ADDRESS
    fail(store, _ADDRESS, rule.free + 1)
    assert 0 < tried(store, _ADDRESS) <= 1

    time.pass_(seconds=rule.leak_seconds * 20 + 1)
    fail(store, _ADDRESS, 20)
    assert tried(store, _ADDRESS) > 0

    time.pass_(seconds=rule.leak_seconds * (rule.free + 2))
    fail(store, _ADDRESS, rule.free)


def test_nothing_is_kept_of_failures_that_are_forgotten(store: Store, time: Time) -> None:
    fail(store, _ANA, _FREE)
    fail(store, _ADDRESS, _FREE)

    time.pass_(days=1)
    fail(store, throttle.login("ben"), 1)

    assert store.write_now(lambda db: db.execute_sql("SELECT count(*) FROM throttle").fetchone()) == (1,)


def test_logins_that_succeed_never_make_an_address_wait(store: Store) -> None:
    for number in range(3 * throttle.ADDRESS.free):
        name = throttle.login(f"p{number}")
        assert tried(store, name, _ADDRESS) == 0.0
        store.write_now(throttle.succeed, name, [_ADDRESS])


def test_a_login_that_succeeds_forgives_the_account_and_not_the_address(store: Store) -> None:
    fail(store, _ANA, _FREE)
    fail(store, _ADDRESS, throttle.ADDRESS.free)
    assert tried(store, _ANA, _ADDRESS) == 0.0

    store.write_now(throttle.succeed, _ANA, [_ADDRESS])

    fail(store, _ANA, _FREE)
    fail(store, _ADDRESS, 1)
    assert tried(store, _ADDRESS) > 0


def test_one_subject_that_waits_makes_the_try_wait_and_the_others_are_not_counted(store: Store) -> None:
    fail(store, _ANA, _FREE + 1)
    for _ in range(_FREE + 1):
        assert tried(store, _ANA, throttle.session("session")) > 0

    fail(store, throttle.session("session"), _FREE + 1)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("2001:db8::1", "2001:db8::ffff:1:2:3", True),
        ("2001:db8::1", "2001:0db8:0000:0000::2", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("192.0.2.1", "192.0.2.1", True),
        ("192.0.2.1", "192.0.2.2", False),
        ("unix", "unix", True),
        ("unix", "", False),
    ],
)
def test_addresses_of_version_6_count_by_their_network(store: Store, one: str, other: str, same: bool) -> None:
    fail(store, throttle.address(one), throttle.ADDRESS.free + 1)

    assert (tried(store, throttle.address(other)) > 0) == same


def test_a_name_a_session_and_an_address_are_never_taken_for_each_other(store: Store) -> None:
    fail(store, throttle.login("192.0.2.7"), _FREE + 1)

    fail(store, throttle.session("192.0.2.7"), 1)
    fail(store, throttle.address("192.0.2.7"), 1)


async def test_a_try_whose_password_could_not_be_checked_does_not_count(store: Store) -> None:
    passwords = Passwords(10)
    credentials = Credentials(7, await passwords.hash(PASSWORD), 0)
    check = PasswordCheck(store, passwords, throttled=True)
    # As many as it takes until the queue is full.
    under_way = [asyncio.create_task(passwords.check("wrong", None)) for _ in range(200)]
    await asyncio.sleep(0)

    for _ in range(3 * _FREE):
        with pytest.raises(ResourceExhausted) as refusal:
            await check.matches("login", PASSWORD, credentials, _ANA, _ADDRESS)
        assert refusal.value.reason_name == "OVERLOADED"

    await asyncio.gather(*under_way, return_exceptions=True)
    assert await check.matches("login", PASSWORD, credentials, _ANA, _ADDRESS)
    fail(store, _ANA, _FREE)


def _login(people: People) -> grpc.aio.UnaryUnaryMultiCallable[accounts_pb2.LoginRequest, accounts_pb2.LoginResponse]:
    return people.channel.unary_unary(
        "/insta.gateway.v1.AccountService/Login",
        request_serializer=accounts_pb2.LoginRequest.SerializeToString,
        response_deserializer=accounts_pb2.LoginResponse.FromString,
    )
