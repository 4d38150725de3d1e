"""The event log of the users service: what stands in it, and how it is read."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
import pytest_asyncio
from google.protobuf import duration_pb2

from chassis import clock, events
from chassis.call import Caller
from chassis.errors import Error
from chassis.local import LocalChannel
from chassis.metrics import Metrics
from chassis.server import endpoints_of
from chassis.settings import Settings
from chassis.store import Store
from insta.users.v1 import events_pb2, events_pb2_grpc
from services.users import accounts, logins, sessions
from services.users.accounts import Account
from services.users.event_servicer import EventServicer
from services.users.sessions import MOST_PER_USER
from suite.composition import GATEWAY, Assembly
from suite.serving import together
from tests import databases
from tests.chassis.issuer import Issuer
from tests.people import failure
from tests.users.logins import Time, account, users_store

_SECOND = 1_000_000
_HASH = b"$2b$04$new"


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with users_store(tmp_path) as opened:
        yield opened


@pytest.fixture
def other_process(tmp_path: Path, store: Store) -> Iterator[Store]:
    """The same database as a second process has it."""
    with users_store(tmp_path) as opened:
        yield opened


@pytest.fixture
def time_(monkeypatch: pytest.MonkeyPatch) -> Time:
    return Time(monkeypatch)


@pytest.fixture
def draining() -> asyncio.Event:
    return asyncio.Event()


@pytest_asyncio.fixture
async def log(store: Store, draining: asyncio.Event) -> AsyncIterator[events_pb2_grpc.EventServiceStub]:
    """The event service as other parts of the process call it."""
    servicers = {"insta.users.v1.EventService": EventServicer(store, draining)}
    channel: Any = LocalChannel(endpoints_of(servicers, Issuer().verifier(), Metrics(), admission=None))
    yield events_pb2_grpc.EventServiceStub(channel)


def ended(store: Store, count: int = 1) -> list[str]:
    """End sessions of a new account, one by one. Returns their ids, which stand in the log in this order."""
    ana = store.write_now(account, f"p{clock.now()}")
    begun = [store.write_now(sessions.begin, ana.id, "phone", "")[0].id for _ in range(count)]
    for session_id in begun:
        assert store.write_now(sessions.end, ana.id, session_id)
    databases.settle(store)
    return begun


def logged(store: Store, offset: int = 0, start_time: int = 0, limit: int = 1000) -> list[events_pb2.Event]:
    """What the log holds of sessions and deletions."""
    databases.settle(store)
    batch = store.write_now(events.read, offset, start_time, limit)
    found = [events_pb2.Event.FromString(bytes(stored.payload)) for stored in batch.events]
    return [event for event in found if event.WhichOneof("payload") in ("sessions_ended", "user_deleted")]


def ids_of(found: list[events_pb2.Event]) -> list[str]:
    return [session_id for event in found for session_id in event.sessions_ended.session_ids]


class Household:
    """Accounts with a session each: ana, who has no role, and a superuser."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.ana = store.write_now(account, "ana")
        self.boss = store.write_now(account, "boss", superuser=True)
        self.sessions = {who.id: self.begin(who) for who in (self.ana, self.boss)}

    def begin(self, who: Account) -> str:
        return self.store.write_now(sessions.begin, who.id, "phone", "")[0].id

    def caller(self, who: Account) -> Caller:
        return Caller(who.id, bool(who.privileged), bool(who.superuser), self.sessions[who.id])


@pytest.fixture
def household(store: Store) -> Household:
    return Household(store)


def _password(home: Household) -> Any:
    credentials = home.store.write_now(accounts.credentials_by_id, home.ana.id)
    assert credentials is not None
    return home.store.write_now(accounts.set_password, home.caller(home.ana), credentials, _HASH)


def _roles(home: Household) -> Any:
    return home.store.write_now(accounts.set_roles, home.caller(home.boss), home.ana.id, staff=True, superuser=None)


def _deactivation(home: Household) -> Any:
    return home.store.write_now(accounts.set_active, home.caller(home.boss), home.ana.id, False)


def _revocation(home: Household) -> Any:
    return home.store.write_now(accounts.end_sessions, home.caller(home.boss), home.ana.id)


def _logout_everywhere(home: Household) -> Any:
    return home.store.write_now(sessions.end_all, home.ana.id)


@pytest.mark.parametrize(
    "end", [_password, _roles, _deactivation, _revocation, _logout_everywhere], ids=lambda end: end.__name__.strip("_")
)
def test_what_ends_all_sessions_of_an_account_is_one_event(
    household: Household, end: Callable[[Household], Any]
) -> None:
    second = household.begin(household.ana)

    end(household)
    # Nothing is left to end.
    _logout_everywhere(household)

    (event,) = logged(household.store)
    assert event.sessions_ended.user_id == household.ana.id
    assert set(event.sessions_ended.session_ids) == {household.sessions[household.ana.id], second}


def test_a_deletion_is_told_after_the_end_of_its_sessions(household: Household) -> None:
    household.store.write_now(accounts.delete, household.caller(household.boss), household.ana.id)

    first, second = logged(household.store)
    assert ids_of([first]) == [household.sessions[household.ana.id]]
    assert second.user_deleted.user_id == household.ana.id


def test_a_refresh_token_that_comes_twice_is_told_as_the_end_of_its_session(household: Household) -> None:
    session, token = household.store.write_now(sessions.begin, household.ana.id, "phone", "")
    household.store.write_now(logins.refresh, token, "")
    assert logged(household.store) == []

    household.store.write_now(logins.refresh, token, "")

    assert ids_of(logged(household.store)) == [session.id]


def test_a_session_beyond_the_last_is_told_as_the_end_of_another(household: Household) -> None:
    begun = [household.sessions[household.ana.id]]
    begun += [household.begin(household.ana) for _ in range(MOST_PER_USER)]

    assert ids_of(logged(household.store)) == begun[:1]


def test_a_session_that_expires_is_not_told(store: Store, time_: Time) -> None:
    ana = store.write_now(account)
    store.write_now(sessions.begin, ana.id, "phone", "")
    time_.pass_(days=31)

    store.write_now(sessions.begin, ana.id, "phone", "")

    assert logged(store) == []
    assert len(store.write_now(sessions.of_user, ana.id)) == 1


@pytest.mark.parametrize(
    "change",
    [
        lambda home: home.store.write_now(accounts.delete, home.caller(home.boss), home.boss.id),
        lambda home: home.store.write_now(accounts.set_active, home.caller(home.boss), home.boss.id, False),
        lambda home: home.store.write_now(
            accounts.set_roles, home.caller(home.boss), home.boss.id, staff=None, superuser=False
        ),
        lambda home: home.store.write_now(accounts.delete, home.caller(home.ana), home.boss.id),
        lambda home: home.store.write_now(accounts.end_sessions, home.caller(home.ana), home.boss.id),
        lambda home: home.store.write_now(accounts.delete, home.caller(home.boss), 2**40),
    ],
    ids=["delete last", "deactivate last", "demote last", "delete by others", "revoke by others", "unknown"],
)
def test_a_change_that_is_refused_leaves_no_event_and_ends_no_session(
    household: Household, change: Callable[[Household], Any]
) -> None:
    with pytest.raises(Error):
        change(household)

    assert logged(household.store) == []
    for who in (household.ana, household.boss):
        assert [session.id for session in household.store.write_now(sessions.of_user, who.id)] == [
            household.sessions[who.id]
        ]


def test_a_transaction_that_fails_after_its_event_leaves_none(store: Store) -> None:
    ana = store.write_now(account)
    session, _ = store.write_now(sessions.begin, ana.id, "phone", "")

    def change(db: Any) -> None:
        assert sessions.end_all(db, ana.id) == [session.id]
        raise RuntimeError("the disk is full")

    with pytest.raises(RuntimeError):
        store.write_now(change)

    assert logged(store) == []
    assert store.write_now(sessions.of_user, ana.id) == [session]


async def test_of_changes_in_one_commit_those_that_fail_leave_no_event(household: Household) -> None:
    # Written together: a refusal undoes its own change alone.
    tasks = []
    for _ in range(MOST_PER_USER // 2):
        tasks.append(household.store.write(accounts.delete, household.caller(household.boss), household.boss.id))
        session_id = household.begin(household.ana)
        tasks.append(household.store.write(sessions.end, household.ana.id, session_id))
    results = await asyncio.gather(*tasks, return_exceptions=True)

    assert [result is True for result in results] == [False, True] * (MOST_PER_USER // 2)
    found = logged(household.store)
    assert len(found) == MOST_PER_USER // 2
    assert not any(event.HasField("user_deleted") for event in found)


async def test_events_are_read_in_the_order_in_which_they_happened(
    store: Store, log: events_pb2_grpc.EventServiceStub
) -> None:
    before = clock.now()
    session_ids = ended(store, 5)

    answer = await log.ReadEvents(events_pb2.ReadEventsRequest())

    assert ids_of(list(answer.events)) == session_ids
    offsets = [event.offset for event in answer.events]
    assert offsets == sorted(set(offsets))
    assert answer.next_offset == offsets[-1]
    times = [event.time.ToMicroseconds() for event in answer.events]
    assert times == sorted(times)
    assert before <= times[0]
    assert times[-1] <= clock.now()


async def test_reading_on_from_an_offset_passes_nothing_over_and_repeats_nothing(
    store: Store, log: events_pb2_grpc.EventServiceStub
) -> None:
    session_ids = ended(store, 7)
    read: list[str] = []
    offset = 0

    # The first is that of the account.
    for expected in (3, 3, 2, 0):
        answer = await log.ReadEvents(events_pb2.ReadEventsRequest(offset=offset, limit=3))
        assert len(answer.events) == expected
        read += ids_of(list(answer.events))
        offset = answer.next_offset
    session_ids += ended(store, 2)
    answer = await log.ReadEvents(events_pb2.ReadEventsRequest(offset=offset, limit=3))

    assert read + ids_of(list(answer.events)) == session_ids


async def test_a_reader_without_an_offset_reads_from_a_time_on(
    store: Store, log: events_pb2_grpc.EventServiceStub, time_: Time
) -> None:
    ended(store, 3)
    time_.pass_(minutes=20)
    since = clock.now()
    recent = ended(store, 2)

    answer = await log.ReadEvents(events_pb2.ReadEventsRequest(start_time=clock.timestamp(since)))
    later = await log.ReadEvents(events_pb2.ReadEventsRequest(start_time=clock.timestamp(clock.now() + _SECOND)))

    assert ids_of(list(answer.events)) == recent
    # Who begins now reads on after what happened before.
    assert list(later.events) == []
    assert later.next_offset == answer.next_offset


async def test_no_limit_is_100_and_more_than_1000_cannot_be_asked_for(
    store: Store, log: events_pb2_grpc.EventServiceStub
) -> None:
    for number in range(1001):
        store.write_now(events.append, events_pb2.Event(user_deleted=events_pb2.UserDeleted(user_id=number)))

    async def count(limit: int) -> int:
        return len((await log.ReadEvents(events_pb2.ReadEventsRequest(limit=limit))).events)

    assert [await count(limit) for limit in (0, 1, 1000)] == [100, 1, 1000]
    for request in (
        events_pb2.ReadEventsRequest(limit=1001),
        events_pb2.ReadEventsRequest(limit=-1),
        events_pb2.ReadEventsRequest(offset=-1),
        events_pb2.ReadEventsRequest(wait=duration_pb2.Duration(seconds=31)),
        events_pb2.ReadEventsRequest(wait=duration_pb2.Duration(seconds=-1)),
    ):
        failed = await failure(log.ReadEvents(request))
        assert (failed.code, failed.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELDS")


@asynccontextmanager
async def waiting(log: events_pb2_grpc.EventServiceStub, seconds: int = 30) -> AsyncIterator[asyncio.Task[Any]]:
    """A question that waits for an event."""

    async def ask() -> Any:
        wait = duration_pb2.Duration(seconds=seconds)
        return await log.ReadEvents(events_pb2.ReadEventsRequest(wait=wait), timeout=60)

    task = asyncio.create_task(ask())
    # It asked once, and found nothing.
    done, _ = await asyncio.wait([task], timeout=0.2)
    assert not done
    yield task
    task.cancel()


async def test_a_reader_that_waits_gets_an_event_within_a_second_also_from_another_process(
    store: Store, other_process: Store, log: events_pb2_grpc.EventServiceStub
) -> None:
    for writer in (store, other_process):
        ana = writer.write_now(account, f"p{clock.now()}")
        session, _ = writer.write_now(sessions.begin, ana.id, "phone", "")
        next_offset = (await log.ReadEvents(events_pb2.ReadEventsRequest())).next_offset
        request = events_pb2.ReadEventsRequest(offset=next_offset, wait=duration_pb2.Duration(seconds=30))
        answer = asyncio.create_task(_read(log, request))
        await asyncio.sleep(0)
        await writer.write(sessions.end, ana.id, session.id)
        begun = time.perf_counter()

        assert ids_of(list((await answer).events)) == [session.id]
        assert time.perf_counter() - begun < 1


async def _read(log: events_pb2_grpc.EventServiceStub, request: events_pb2.ReadEventsRequest) -> Any:
    return await log.ReadEvents(request, timeout=60)


async def test_a_reader_that_waits_in_vain_is_told_so_in_time(log: events_pb2_grpc.EventServiceStub) -> None:
    begun = time.perf_counter()

    answer = await log.ReadEvents(events_pb2.ReadEventsRequest(wait=duration_pb2.Duration(nanos=300_000_000)))

    assert list(answer.events) == []
    assert 0.3 <= time.perf_counter() - begun < 5


async def test_a_reader_that_does_not_wait_is_answered_at_once(log: events_pb2_grpc.EventServiceStub) -> None:
    answer = await log.ReadEvents(events_pb2.ReadEventsRequest())

    assert (list(answer.events), answer.next_offset) == ([], 0)


async def test_a_server_that_drains_ends_the_wait_at_once(
    log: events_pb2_grpc.EventServiceStub, draining: asyncio.Event
) -> None:
    async with waiting(log) as answer:
        begun = time.perf_counter()
        draining.set()
        await answer

    assert time.perf_counter() - begun < 5


async def test_while_a_server_drains_its_followers_do_not_keep_it_busy(tmp_path: Path) -> None:
    assembly = Assembly(Settings(data=tmp_path, bcrypt_cost=4), together(), GATEWAY)
    server = assembly.server(shares_port=False, certificate=None)
    await server.start("127.0.0.1:0")
    assembly.begin()
    await assembly.first_news()

    def asked() -> float:
        labels = {"method": "insta.users.v1.EventService/ReadEvents", "code": "OK"}
        return assembly.metrics.registry.get_sample_value("insta_calls_total", labels) or 0.0

    assert asked() >= 1
    await server.drain(0)
    before = asked()

    # Calls under way may take as long as the stop has for them: nothing else is to take the processor from them.
    await asyncio.sleep(0.5)

    # Three read the log of users, and one that of posts.
    assert asked() - before <= 200
    await assembly.close()


def test_the_log_keeps_its_name_over_restarts_and_another_log_has_another(tmp_path: Path) -> None:
    def epoch_in(folder: str) -> str:
        with users_store(tmp_path / folder) as store:
            return store.write_now(events.read, 0, 0, 1).epoch

    first = [epoch_in("one") for _ in range(3)]

    assert len(set(first)) == 1
    assert first[0]
    assert epoch_in("two") != first[0]


@pytest.mark.sqlite
async def test_a_reader_that_is_ahead_of_a_restored_log_misses_nothing_of_what_happens_in_it(tmp_path: Path) -> None:
    # A backup has the name of the log that it was made of, and offsets that readers know for other events.
    with users_store(tmp_path) as store:
        ended(store, 3)
        behind = store.write_now(events.read, 0, 0, 1000).next_offset
    backup = (tmp_path / "users.db").read_bytes()
    with users_store(tmp_path) as store:
        ended(store, 5)
        ahead = store.write_now(events.read, 0, 0, 1000)
    (tmp_path / "users.db").write_bytes(backup)
    assert behind < ahead.next_offset

    with users_store(tmp_path) as restored:
        told = restored.write_now(events.read, ahead.next_offset, 0, 1000)
        session_ids = ended(restored, 2)
        # Whether it reads on or begins anew, as another epoch would tell it to.
        offset = told.next_offset if told.epoch == ahead.epoch else 0
        found = logged(restored, offset)

    assert set(session_ids) <= set(ids_of(found))
