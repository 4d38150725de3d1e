"""How much one caller may change in a minute."""

from __future__ import annotations

import types
from collections.abc import AsyncIterator, Iterator

import grpc
import pytest
import pytest_asyncio

from chassis import limits
from chassis.call import Caller
from chassis.errors import ResourceExhausted
from chassis.limits import MutationLimit
from insta.gateway.v1 import accounts_pb2, posts_pb2
from tests.people import People, Person, failure
from tests.running import PASSWORD, RunningSuite, running

_PER_MINUTE = 5


class Clock:
    """The monotonic clock of the limits. It goes on by a microsecond whenever it is looked at."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr(limits, "time", types.SimpleNamespace(monotonic=self._read))

    def _read(self) -> float:
        self.now += 1e-6
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def waits(limit: MutationLimit, user_id: int = 7) -> float | None:
    """Call once. None: the call was let through; else the seconds to wait."""
    try:
        limit.require(Caller(user_id))
    except ResourceExhausted as refusal:
        return refusal.retry_after
    return None


@pytest.mark.parametrize("per_minute", [1, 5, 7, 6000])
def test_as_many_calls_as_a_minute_takes_pass_at_once_and_one_more_does_not(clock: Clock, per_minute: int) -> None:
    limit = MutationLimit(per_minute)

    assert [waits(limit) for _ in range(per_minute)] == [None] * per_minute

    assert waits(limit) == pytest.approx(60 / per_minute, abs=0.01)


def test_a_call_that_was_refused_passes_after_the_wait_that_it_was_told(clock: Clock) -> None:
    limit = MutationLimit(5)
    while (told := waits(limit)) is None:
        pass

    clock.now += told - 0.01
    assert waits(limit) == pytest.approx(0.01, abs=0.001)
    clock.now += 0.011

    assert waits(limit) is None
    assert waits(limit) is not None


def test_a_minute_later_as_many_calls_pass_again_and_no_more(clock: Clock) -> None:
    limit = MutationLimit(5)
    while waits(limit) is None:
        pass

    # However long nothing was called: what was not used is not saved.
    clock.now += 3600

    assert [waits(limit) for _ in range(5)] == [None] * 5
    assert waits(limit) is not None


def test_calls_that_are_refused_do_not_count(clock: Clock) -> None:
    limit = MutationLimit(5)
    while waits(limit) is None:
        pass

    assert [waits(limit) for _ in range(100)] == [pytest.approx(12.0, abs=0.01)] * 100


def test_each_caller_is_counted_alone(clock: Clock) -> None:
    limit = MutationLimit(1)

    assert [waits(limit, user_id) for user_id in (1, 2, 3)] == [None] * 3
    assert waits(limit, 2) is not None


def test_no_limit_lets_everybody_pass(clock: Clock) -> None:
    limit = MutationLimit(0)

    assert all(waits(limit) is None for _ in range(10_000))


def test_callers_who_are_idle_are_forgotten_and_the_others_are_not(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "_REMEMBERED_CALLERS", 10)
    limit = MutationLimit(1)
    for user_id in range(1, 11):
        waits(limit, user_id)
    clock.now += 61
    assert waits(limit, 1) is None

    assert waits(limit, 11) is None

    assert len(limit._calm_again) == 2
    assert [waits(limit, user_id) is None for user_id in (1, 11, 2)] == [False, False, True]


@pytest.fixture(scope="module", params=["together", "apart"])
def suite(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningSuite]:
    """A suite in which nobody may change much."""
    data = tmp_path_factory.mktemp("limited") / "var"
    with running(request.param, data, INSTA_MUTATIONS_PER_MINUTE=str(_PER_MINUTE)) as started:
        yield started


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def people(suite: RunningSuite) -> AsyncIterator[People]:
    made = People(suite.address)
    yield made
    await made.channel.close()


async def test_one_change_too_many_in_a_minute_is_refused_and_says_when_to_come_back(ana: Person) -> None:
    for _ in range(_PER_MINUTE):
        await ana.post()

    failed = await failure(ana.post())

    assert (failed.code, failed.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "RATE_LIMITED")
    assert failed.retry_after is not None
    assert 0 < failed.retry_after <= 60 / _PER_MINUTE


async def test_changes_of_all_kinds_count_together(ana: Person, ben: Person) -> None:
    post = await ben.post()

    await ana.post()
    await ana.like(post)
    await ana.comment(post)
    await ana.follow(ben)
    # A change that is refused counts as well: it is work, too.
    assert (await failure(ana.posts.DeletePost(posts_pb2.DeletePostRequest(post_id=post.id)))).reason == "NOT_OWNER"

    failed = await failure(ana.accounts.Logout(accounts_pb2.LogoutRequest()))
    assert failed.reason == "RATE_LIMITED"


async def test_who_changed_too_much_reads_on_and_nobody_else_waits(people: People, ana: Person, ben: Person) -> None:
    post = await ben.post()
    for _ in range(_PER_MINUTE):
        await ana.post()
    assert (await failure(ana.like(post))).reason == "RATE_LIMITED"

    for _ in range(3 * _PER_MINUTE):
        await ana.see(post)
        await ana.profile(ben)
    await ben.like(post)
    # It is the account that waits, in all its sessions.
    again = await people.log_in(ana.username, PASSWORD)
    assert (await failure(again.like(post))).reason == "RATE_LIMITED"
