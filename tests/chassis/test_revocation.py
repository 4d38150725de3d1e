"""Sessions that have ended: how a verifier hears of them, and what it does without news."""

from __future__ import annotations

import asyncio
import time
import types
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any

import grpc
import pytest
import pytest_asyncio
import structlog

from chassis import errors, follower, revocation
from chassis.errors import Unauthenticated
from chassis.follower import Follower
from chassis.revocation import Revocations
from insta.posts.v1 import posts_pb2
from insta.users.v1 import auth_pb2
from tests.chassis.issuer import Issuer
from tests.chassis.peers import Peer, running
from tests.people import Failure, failure


@pytest_asyncio.fixture(params=["local", "remote"])
async def peer(request: pytest.FixtureRequest, issuer: Issuer) -> AsyncIterator[Peer]:
    async with running(request.param, issuer) as made:
        yield made


def as_holder(issuer: Issuer, session_id: str = "session") -> list[tuple[str, str]]:
    """The metadata of a call with a token of a session."""
    return [("authorization", f"Bearer {issuer.token(issuer.claims(sid=session_id))}")]


def change(peer: Peer, metadata: Any) -> Awaitable[Any]:
    return peer.posts.CreatePost(posts_pb2.CreatePostRequest(title="First light"), metadata=metadata)


def read(peer: Peer, metadata: Any) -> Awaitable[Any]:
    return peer.posts.GetPost(posts_pb2.GetPostRequest(post_id=7), metadata=metadata)


def told(failed: Failure) -> tuple[grpc.StatusCode, str]:
    return failed.code, failed.reason


async def answer_post(request: object) -> posts_pb2.CreatePostResponse:
    return posts_pb2.CreatePostResponse()


ENDED = (grpc.StatusCode.UNAUTHENTICATED, "SESSION_ENDED")
UNKNOWN = (grpc.StatusCode.UNAVAILABLE, "REVOCATIONS_UNKNOWN")


async def test_the_token_of_an_ended_session_is_refused_although_it_was_good_before(peer: Peer, issuer: Issuer) -> None:
    token, other = as_holder(issuer), as_holder(issuer, "another session")
    await read(peer, token)
    await read(peer, other)

    issuer.revocations.add(["session"])

    assert told(await failure(read(peer, token))) == ENDED
    assert told(await failure(change(peer, token))) == ENDED
    # As is one that nobody saw before.
    assert told(await failure(read(peer, as_holder(issuer)))) == ENDED
    await read(peer, other)


async def test_without_news_for_30_seconds_nothing_is_changed_and_reads_go_on(peer: Peer, issuer: Issuer) -> None:
    token = as_holder(issuer)
    peer.servicer.script = answer_post
    issuer.silence = 29.9
    await change(peer, token)
    reached = len(peer.servicer.requests)

    issuer.silence = 30.1
    failed = await failure(change(peer, token))

    assert told(failed) == UNKNOWN
    assert failed.retry_after is not None
    assert failed.retry_after > 0
    assert len(peer.servicer.requests) == reached
    peer.servicer.script = _post
    await read(peer, token)
    issuer.silence = 0
    peer.servicer.script = answer_post
    await change(peer, token)


async def _post(request: object) -> posts_pb2.GetPostResponse:
    return posts_pb2.GetPostResponse()


async def test_what_is_known_to_have_ended_is_refused_without_news_as_well(peer: Peer, issuer: Issuer) -> None:
    issuer.revocations.add(["session"])
    issuer.silence = float("inf")

    for call in (read, change):
        assert told(await failure(call(peer, as_holder(issuer)))) == ENDED
    # Nor does a bad token learn anything.
    bad = [("authorization", "Bearer bad")]
    assert (await failure(change(peer, bad))).reason == "TOKEN_INVALID"


async def test_whoever_needs_no_token_needs_no_news(peer: Peer, issuer: Issuer) -> None:
    issuer.silence = float("inf")

    await peer.auth.Login(auth_pb2.LoginRequest(login="ana", password="correct horse"))


async def test_a_verifier_that_never_heard_anything_verifies_for_reads_only(issuer: Issuer) -> None:
    issuer.silence = float("inf")
    verifier = issuer.verifier()

    assert (await verifier.verify(issuer.authorization(7))).user_id == 7
    with pytest.raises(errors.Unavailable):
        verifier.require_news()


class Clock:
    """The monotonic clock of a module."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, module: types.ModuleType) -> None:
        self.now = 1000.0
        monkeypatch.setattr(module, "time", types.SimpleNamespace(monotonic=lambda: self.now))


def test_an_ended_session_is_remembered_until_its_tokens_have_expired(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch, revocation)
    ended = Revocations(lambda: 0.0, remember_seconds=60)
    ended.add(["first", "second"])

    clock.now += 59.9
    ended.add(["third"])
    assert all(session in ended for session in ("first", "second", "third"))
    clock.now += 0.2
    ended.add([])

    assert [session in ended for session in ("first", "second", "third")] == [False, False, True]


def test_a_session_that_is_told_of_twice_is_remembered_from_the_last_time(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch, revocation)
    ended = Revocations(lambda: 0.0, remember_seconds=60)
    ended.add(["session"])

    clock.now += 50
    ended.add(["session", "other"])
    clock.now += 50
    ended.add([])
    assert "session" in ended
    clock.now += 20
    ended.add([])

    assert "session" not in ended


def test_many_sessions_are_forgotten_at_once_without_holding_up_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch, revocation)
    ended = Revocations(lambda: 0.0, remember_seconds=60)
    many = [str(number) for number in range(100_000)]
    ended.add(many)
    clock.now += 61
    begun = time.perf_counter()

    ended.add(["last"])

    assert time.perf_counter() - begun < 1
    assert "last" in ended
    assert not any(session_id in ended for session_id in many)


@dataclass
class Batch:
    """An answer of a log."""

    events: list[str]
    next_offset: int
    epoch: str
    head_offset: int
    newest_offset: int


class Log:
    """An event log in memory, which is asked as a service is.

    Attributes:
        failure: What the next questions raise, as long as it is set.
        held_back: How many of the newest events cannot be read yet.
        asked: The offsets of all questions.
    """

    def __init__(self) -> None:
        self.events: list[str] = []
        self.epoch = "first"
        self.failure: Exception | None = None
        self.held_back = 0
        self.asked: list[int] = []
        self._more = asyncio.Condition()

    async def read(self, offset: int, limit: int) -> Batch:
        self.asked.append(offset)
        if self.failure is not None:
            raise self.failure
        async with self._more:
            # As the service does: what there is at once, else a while later.
            if offset >= len(self.events) and len(self.asked) > 1:
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._more.wait(), 0.05)
        newest = len(self.events)
        events = self.events[offset : min(offset + limit, newest - self.held_back)]
        return Batch(events, offset + len(events), self.epoch, newest - self.held_back, newest)

    async def append(self, *events: str) -> None:
        async with self._more:
            self.events += events
            self._more.notify_all()


@asynccontextmanager
async def following(log: Log, apply: Callable[[str], None]) -> AsyncIterator[Follower]:
    """A follower of a log at work."""
    made = Follower("users", log.read)
    made.subscribe(apply)
    task = asyncio.create_task(made.run())
    try:
        yield made
    finally:
        task.cancel()
        await asyncio.wait([task])


async def until(condition: Callable[[], bool]) -> None:
    """Wait until something is so."""
    async with asyncio.timeout(20):
        while True:
            if condition():
                return
            await asyncio.sleep(0.01)


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Failures are tried again at once."""
    monkeypatch.setattr(follower, "_SECONDS_AFTER_FAILURE", 0.01)


async def test_a_follower_applies_each_event_once_in_order() -> None:
    log, applied = Log(), list[str]()
    await log.append("1", "2")
    async with following(log, applied.append):
        for number in range(3, 2503):
            await log.append(str(number))
            if number % 100 == 0:
                await asyncio.sleep(0)
        await until(lambda: len(applied) >= 2502)
        # Some questions later nothing was applied again.
        asked = len(log.asked)
        await until(lambda: len(log.asked) > asked + 3)

    assert applied == [str(number) for number in range(1, 2503)]


@pytest.mark.parametrize(
    "failure",
    [
        errors.unavailable(),
        errors.LocalRpcError(errors.deadline_exceeded(), "trace"),
        grpc.aio.AioRpcError(grpc.StatusCode.UNAVAILABLE, grpc.aio.Metadata(), grpc.aio.Metadata()),
        ValueError("nonsense"),
    ],
    ids=repr,
)
async def test_a_follower_goes_on_after_failures_and_passes_nothing_over(failure: Exception) -> None:
    log, applied = Log(), list[str]()
    async with following(log, applied.append) as made:
        await log.append("1")
        await until(lambda: applied == ["1"])
        log.failure = failure
        await until(lambda: len(log.asked) > 5)
        asked = len(log.asked)
        await log.append("2", "3")
        await until(lambda: len(log.asked) > asked + 5)
        assert applied == ["1"]
        age = made.age()
        assert age > 0.02

        log.failure = None
        await until(lambda: len(applied) == 3)
        await until(lambda: made.age() < age)

    assert applied == ["1", "2", "3"]


async def test_failures_in_a_row_are_logged_once_and_their_end() -> None:
    log = Log()
    with structlog.testing.capture_logs() as lines:
        async with following(log, lambda event: None):
            log.failure = errors.unavailable()
            await until(lambda: len(log.asked) > 10)
            log.failure = None
            asked = len(log.asked)
            await until(lambda: len(log.asked) > asked + 2)
            log.failure = errors.unavailable()
            asked = len(log.asked)
            await until(lambda: len(log.asked) > asked + 5)

    away, back = "event log cannot be read", "event log is read again"
    assert [line["event"] for line in lines] == [away, back, away]


async def test_a_follower_is_old_until_it_has_heard_the_log() -> None:
    log = Log()
    log.failure = errors.unavailable()
    async with following(log, lambda event: None) as made:
        await until(lambda: len(log.asked) > 2)
        assert made.age() == float("inf")
        assert not await made.wait_until_heard(0.01)

        log.failure = None
        assert await made.wait_until_heard(10)
        assert made.age() < 10


async def test_a_follower_that_has_more_to_read_is_not_up_to_date() -> None:
    log, ages = Log(), list[float]()
    await log.append(*(str(number) for number in range(follower._LIMIT + 1)))
    async with following(log, lambda event: ages.append(made.age())) as made:
        await until(lambda: len(ages) == follower._LIMIT + 1)
        assert await made.wait_until_heard(10)

    # Not even when it had applied the first thousand.
    assert set(ages) == {float("inf")}


async def test_a_follower_from_whom_events_are_held_back_gets_older() -> None:
    log, applied = Log(), list[str]()
    await log.append("1")
    async with following(log, applied.append) as made:

        def heard_at() -> float:
            return time.monotonic() - made.age()

        async def asked_again() -> None:
            asked = len(log.asked)
            await until(lambda: len(log.asked) > asked + 3)

        await asked_again()
        log.held_back = 1
        await log.append("2")
        await asked_again()
        before = heard_at()
        await asked_again()
        assert heard_at() == pytest.approx(before, abs=0.005)
        assert made.silence() < made.age()

        # The newest is held back still, but not what was the newest before.
        await log.append("3")
        await until(lambda: applied == ["1", "2"])
        await until(lambda: heard_at() > before + 0.01)
        between = time.monotonic()
        assert heard_at() < between
        await asked_again()
        assert heard_at() < between
        log.held_back = 0
        await until(lambda: heard_at() > between)

    assert applied == ["1", "2", "3"]


async def test_a_log_that_was_replaced_is_read_from_its_start() -> None:
    log, applied = Log(), list[str]()
    await log.append("1", "2", "3")
    async with following(log, applied.append):
        await until(lambda: len(applied) == 3)

        log.events, log.epoch = ["one", "two"], "second"
        await log.append("three", "four")
        await until(lambda: len(applied) >= 7)

    assert applied == ["1", "2", "3", "one", "two", "three", "four"]


async def test_an_event_that_cannot_be_applied_is_not_passed_over_and_its_age_grows() -> None:
    log, applied, tried = Log(), list[str](), list[str]()
    poisoned = True

    def apply(event: str) -> None:
        tried.append(event)
        if event == "poison" and poisoned:
            raise ValueError("cannot be applied")
        applied.append(event)

    with structlog.testing.capture_logs() as lines:
        async with following(log, apply) as made:
            await log.append("1")
            await until(lambda: applied == ["1"])
            await log.append("poison", "2")
            await until(lambda: tried.count("poison") > 3)
            age = made.age()
            await until(lambda: made.age() > age + 0.05)
            assert "2" not in tried
            poisoned = False
            await until(lambda: "2" in applied)
            await until(lambda: made.age() < age)

    assert applied == ["1", "poison", "2"]
    assert {(line["event"], line["log_level"], line["offset"]) for line in lines} == {
        ("event cannot be applied", "error", 1)
    }


async def test_a_session_that_ended_is_refused_as_soon_as_its_event_was_applied(issuer: Issuer) -> None:
    log = Log()
    verifier = issuer.verifier()
    await verifier.verify(issuer.authorization(7))
    async with following(log, lambda session_id: issuer.revocations.add([session_id])):
        await log.append("session")
        await until(lambda: "session" in issuer.revocations)

    with pytest.raises(Unauthenticated) as refusal:
        await verifier.verify(issuer.authorization(7))
    assert refusal.value.reason_name == "SESSION_ENDED"
