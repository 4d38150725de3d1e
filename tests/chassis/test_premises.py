"""Changes that rest on what other services said: what was said before a comparison began counts no more."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path

import pytest
import pytest_asyncio

from chassis.consumer import Consumer, Cursor
from chassis.errors import NotFound, Reason, Unauthenticated, Unavailable
from chassis.events import Batch
from chassis.premises import Premises
from chassis.store import Database, Store
from tests import databases
from tests.chassis import items
from tests.chassis.calls import called_by
from tests.running import ON_POSTGRESQL


class Neighbour:
    """Another service, whose log is another one at each look.

    Attributes:
        gone: Users who do not exist there.
        asked: Whom it was asked for.
    """

    def __init__(self, store: Store) -> None:
        self.gone: set[int] = set()
        self.asked: list[int] = []
        self._renewed = 0
        self._consumer = Consumer(store, "users", self._read, self._apply, self._compare, lambda lag: None)

    async def is_compared_with(self) -> None:
        await self._consumer.step()

    async def missing(self, user_ids: Sequence[int]) -> Sequence[int]:
        self.asked += user_ids
        return [user_id for user_id in user_ids if user_id in self.gone]

    async def _read(self, offset: int, limit: int) -> Batch:
        self._renewed += 1
        return Batch([], 5, f"epoch {self._renewed}", 1, 5, 5, 0)

    def _apply(self, db: Database, event: object) -> None:
        raise AssertionError("there are no events")

    async def _compare(self) -> None:
        """Nothing that is here refers to anybody."""


@pytest_asyncio.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    def make_table(db: Database) -> None:
        with db.bind_ctx([Cursor]):
            db.create_tables([Cursor])

    opened = databases.open_store(tmp_path / "items.db", items.MIGRATIONS)
    opened.write_now(make_table)
    yield opened
    opened.close()


@pytest.fixture
def neighbour(store: Store) -> Neighbour:
    return Neighbour(store)


@pytest.fixture
def premises(store: Store, neighbour: Neighbour) -> Premises:
    return Premises(store, neighbour.missing)


def adding(name: str) -> Callable[[Database], int]:
    return lambda db: items.add(db, name)


def answering(*answers: Callable[[], Awaitable[None]]) -> Callable[[], Awaitable[None]]:
    """A question with another answer each time."""
    left = iter(answers)
    return lambda: next(left)()


async def yes() -> None:
    pass


async def no() -> None:
    raise NotFound(Reason.REASON_POST_NOT_FOUND, "there is no such post any more")


async def test_a_change_asks_again_if_a_comparison_began_after_its_question(
    store: Store, premises: Premises, neighbour: Neighbour
) -> None:
    # What it asked for ended, and was compared, while the answer was under way.
    with called_by(1), pytest.raises(NotFound):
        await premises.write(answering(neighbour.is_compared_with, no), adding("refused"))
    with called_by(1):
        made = await premises.write(answering(neighbour.is_compared_with, yes), adding("made"))

    assert await store.read(items.names) == ["first", "made"]
    assert await store.read(items.existing, [made]) == [made]


async def test_a_comparison_that_begins_while_a_change_waits_makes_it_ask_again(
    store: Store, premises: Premises, neighbour: Neighbour
) -> None:
    order = []

    async def ask() -> None:
        order.append("asked")
        if len(order) == 1:
            # In the queue of the store this is before the change; or it is committed before the change begins.
            counted.append(asyncio.ensure_future(neighbour.is_compared_with()))
            await (counted[0] if ON_POSTGRESQL else asyncio.sleep(0))

    counted: list[asyncio.Future[None]] = []
    with called_by(1):
        await premises.write(ask, adding("made"))
    await asyncio.gather(*counted)

    assert order == ["asked"] * 2
    assert await store.read(items.names) == ["first", "made"]


async def test_a_change_that_is_overtaken_again_and_again_is_refused(
    store: Store, premises: Premises, neighbour: Neighbour
) -> None:
    with called_by(1), pytest.raises(Unavailable) as refused:
        await premises.write(neighbour.is_compared_with, adding("refused"))

    assert refused.value.retry_after
    assert await store.read(items.names) == ["first"]


async def test_who_calls_is_asked_for_once_after_each_comparison_and_never_before_the_first(
    premises: Premises, neighbour: Neighbour
) -> None:
    asked = []
    for number in range(3):
        for attempt in range(2):
            for user_id in (1, 2):
                with called_by(user_id):
                    await premises.write(None, adding(f"{number} {attempt} {user_id}"))
        asked.append(neighbour.asked.copy())
        await neighbour.is_compared_with()

    assert asked == [[], [1, 2], [1, 2, 1, 2]]


async def test_who_is_gone_since_before_a_comparison_changes_nothing(
    store: Store, premises: Premises, neighbour: Neighbour
) -> None:
    with called_by(1):
        await premises.write(None, adding("before"))
        neighbour.gone.add(1)
        await neighbour.is_compared_with()
        for _ in range(2):
            with pytest.raises(Unauthenticated):
                await premises.write(None, adding("refused"))
    with called_by(2):
        await premises.write(None, adding("another's"))

    assert await store.read(items.names) == ["first", "before", "another's"]
