"""Consumers of event logs: each event takes effect exactly once and in order, whatever happens on the way."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any, TypeVar

import pytest
import pytest_asyncio
import structlog
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from chassis import consumer, errors, events
from chassis.consumer import Consumer, Position
from chassis.store import Database, Store
from tests import databases
from tests.chassis.event_logs import all_events, append, forget_up_to, name_of, open_store, settled
from tests.people import until

Result = TypeVar("Result")
LOG = "there"
# On either kind of database.
EXAMPLES = 20
STEPS = 30


class Interrupted(Exception):
    """The process of a consumer is gone."""


def append_and_fail(db: Database, names: list[str]) -> None:
    append(db, names)
    raise LookupError


def apply(db: Database, event: events.Event) -> None:
    db.execute_sql(databases.sql("INSERT INTO effect (name) VALUES (?)"), (name_of(event),))


def effects(db: Database) -> list[str]:
    return [row[0] for row in db.execute_sql("SELECT name FROM effect ORDER BY id").fetchall()]


class Line:
    """The way to a log, on which anything may happen to one answer.

    Attributes:
        next: What happens to the next one; all after it arrive as they are.
    """

    def __init__(self, log: Store) -> None:
        self.next: Callable[[int, int], Awaitable[events.Batch]] = self.well
        self._log = log
        self._last: events.Batch | None = None

    async def read(self, offset: int, limit: int) -> events.Batch:
        """What the consumer calls."""
        happening, self.next = self.next, self.well
        return await happening(offset, limit)

    async def well(self, offset: int, limit: int) -> events.Batch:
        self._last = await self._log.read(events.read, offset, 0, limit)
        return self._last

    async def away(self, offset: int, limit: int) -> events.Batch:
        raise errors.unavailable()

    async def lost(self, offset: int, limit: int) -> events.Batch:
        await self.well(offset, limit)
        raise errors.unavailable()

    async def dies(self, offset: int, limit: int) -> events.Batch:
        await self.well(offset, limit)
        raise Interrupted

    async def cut_off(self, offset: int, limit: int) -> events.Batch:
        """As of a log that answers fewer than it was asked for."""
        batch = await self.well(offset, limit)
        some = batch.events[: (len(batch.events) + 1) // 2]
        return batch._replace(events=some, next_offset=some[-1].offset) if some else batch

    async def doubled(self, offset: int, limit: int) -> events.Batch:
        batch = await self.well(offset, limit)
        return batch._replace(events=[event for event in batch.events for _ in range(2)])

    async def again(self, offset: int, limit: int) -> events.Batch:
        """The last answer a second time."""
        return self._last or await self.well(offset, limit)

    async def late(self, offset: int, limit: int) -> events.Batch:
        batch = await self.well(offset, limit)
        await self._log.write(append, ["while the answer was under way"])
        return batch


HAPPENINGS = ["well", "away", "lost", "dies", "cut_off", "doubled", "again", "late"]


async def nothing_to_compare() -> None:
    raise AssertionError("nothing was missed")


class Reading(RuleBasedStateMachine):
    """A log that is written to, and a consumer to which everything happens."""

    def __init__(self) -> None:
        super().__init__()
        self._loop = asyncio.new_event_loop()
        self._folder = tempfile.TemporaryDirectory()
        self._path = Path(self._folder.name) / "here.db"
        self._log = open_store(Path(self._folder.name) / "there.db")
        self._log.write_now(events.begin)
        self._here = open_store(self._path)
        self._line = Line(self._log)
        self._appended = 0
        self._consumer = self._begin(self._here)

    @rule(count=st.sampled_from([1, 2, 7, 250]))
    def something_happens(self, count: int) -> None:
        names = [str(self._appended + number) for number in range(count)]
        self._run(self._log.write(append, names))
        self._appended += count

    @rule()
    def something_does_not_happen_after_all(self) -> None:
        with pytest.raises(LookupError):
            self._run(self._log.write(append_and_fail, ["undone"]))

    @rule(happening=st.sampled_from(HAPPENINGS))
    def read_on(self, happening: str) -> None:
        self._line.next = getattr(self._line, happening)
        try:
            self._run(self._consumer.step())
        except Interrupted:
            self._consumer = self._begin(self._here)
        except errors.Unavailable:
            pass

    @rule(steps=st.integers(0, 12))
    def die_at_some_moment(self, steps: int) -> None:
        """The consumer goes no further after so many turns of the event loop. What it has sent to be written may be."""
        self._run(self._cancelled_after(steps))
        self._consumer = self._begin(self._here)

    @rule()
    def two_processes_read_at_once(self) -> None:
        other = open_store(self._path)
        try:
            outcomes = self._run(self._both(self._begin(other)))
        finally:
            other.close()
        # One of them finds that the other was faster, unless they came one after the other.
        assert {type(outcome) for outcome in outcomes} <= {bool, RuntimeError}
        assert any(isinstance(outcome, bool) for outcome in outcomes)

    @invariant()
    def what_took_effect_is_what_happened_first(self) -> None:
        found = self._effects()
        assert found == self._happened()[: len(found)]

    def teardown(self) -> None:
        self._run(settled(self._log))
        while self._run(self._consumer.step()):
            pass
        assert self._effects() == self._happened()
        self._here.close()
        self._log.close()
        self._loop.close()
        self._folder.cleanup()

    def _run(self, work: Coroutine[Any, Any, Result]) -> Result:
        return self._loop.run_until_complete(work)

    def _begin(self, store: Store) -> Consumer:
        return Consumer(store, LOG, self._line.read, apply, nothing_to_compare, lambda lag: None)

    async def _cancelled_after(self, steps: int) -> None:
        step = asyncio.ensure_future(self._consumer.step())
        for _ in range(steps):
            await asyncio.sleep(0)
        step.cancel()
        await asyncio.gather(step, return_exceptions=True)
        # Whatever it had sent is written by now, or never will be.
        await self._here.write(effects)

    async def _both(self, rival: Consumer) -> list[Any]:
        return await asyncio.gather(self._consumer.step(), rival.step(), return_exceptions=True)

    def _effects(self) -> list[str]:
        return self._run(self._here.read(effects))

    def _happened(self) -> list[str]:
        """What the log holds: that is the model."""
        return [name_of(event) for event in self._run(all_events(self._log))]


def test_each_event_takes_effect_exactly_once_and_in_order() -> None:
    run_state_machine_as_test(
        Reading,
        settings=settings(
            max_examples=EXAMPLES,
            stateful_step_count=STEPS,
            derandomize=True,
            deadline=None,
            # To make a counterexample smaller takes a minute: add Phase.shrink when there is one.
            phases=[Phase.generate],
            suppress_health_check=[HealthCheck.too_slow],
        ),
    )


class Reader:
    """A consumer of a log, and what it did.

    Attributes:
        poisoned: An event that cannot be applied now.
        offsets: Of what happened, also where it is forgotten.
        compared: How often it compared.
        on_compare: What happens meanwhile.
    """

    def __init__(self, log: Store, here: Store) -> None:
        self.poisoned = ""
        self.offsets: dict[str, int] = {}
        self.compared = 0
        self.lag = -1
        self.here = here
        self.log = log
        self.on_compare: Callable[[], Awaitable[None]] = self._nothing
        self.consumer = Consumer(here, LOG, Line(log).read, self._apply, self._compare, self._set_lag)

    async def happens(self, *names: str) -> None:
        await self.log.write(append, list(names))
        self.offsets |= {name_of(event): event.offset for event in await all_events(self.log)}

    async def read_all(self) -> None:
        while await self.consumer.step():
            pass

    async def effects(self) -> list[str]:
        return await self.here.read(effects)

    async def position(self) -> Position:
        return await self.here.read(consumer.position_of, LOG)

    def _apply(self, db: Database, event: events.Event) -> None:
        if name_of(event) == self.poisoned:
            raise ValueError("cannot be applied")
        apply(db, event)

    async def _compare(self) -> None:
        self.compared += 1
        await self.on_compare()

    async def _nothing(self) -> None:
        pass

    def _set_lag(self, lag: int) -> None:
        self.lag = lag


@pytest_asyncio.fixture
async def reader(tmp_path: Path) -> AsyncIterator[Reader]:
    log, here = open_store(tmp_path / "there.db"), open_store(tmp_path / "here.db")
    log.write_now(events.begin)
    yield Reader(log, here)
    log.close()
    here.close()


def become_another_log(db: Database) -> None:
    db.execute_sql("UPDATE event_log SET epoch = 'another' || substr(epoch, 17)")


async def applied(reader: Reader, count: int) -> None:
    """Wait until so many events took effect."""

    async def enough() -> bool:
        return len(await reader.effects()) >= count

    await until(enough)


async def test_an_event_that_cannot_be_applied_stops_the_consumer_until_its_cause_is_mended(reader: Reader) -> None:
    reader.poisoned = "two"
    with structlog.testing.capture_logs() as logged:

        async def said(lines: int) -> bool:
            return len(logged) >= lines

        running = asyncio.create_task(reader.consumer.task().run(reader.here))
        await reader.happens("zero", "one")
        await applied(reader, 2)
        await reader.happens("two", "three")
        await until(lambda: said(1))
        await reader.happens("four")
        # It tries again, and again, and passes over nothing.
        await until(lambda: said(2))
        stopped = await reader.effects()
        reader.poisoned = ""
        await applied(reader, 5)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    assert stopped == ["zero", "one"]
    assert await reader.effects() == ["zero", "one", "two", "three", "four"]
    assert {(line["log_level"], line["task"]) for line in logged} == {("error", "consumer-there")}


async def test_an_event_that_cannot_be_applied_undoes_the_batch_that_it_came_with(reader: Reader) -> None:
    reader.poisoned = "three"
    await reader.happens("one", "two", "three")

    with pytest.raises(ValueError, match="cannot be applied"):
        await reader.consumer.step()

    assert await reader.effects() == []
    assert (await reader.position()).offset == 0
    assert reader.lag == 3


async def test_a_log_that_is_another_one_now_is_compared_with(reader: Reader) -> None:
    await reader.happens("one", "two")
    await reader.read_all()
    await reader.log.write(become_another_log)
    await reader.happens("three")

    await reader.read_all()
    await reader.happens("four")
    await reader.read_all()

    assert reader.compared == 1
    assert await reader.effects() == ["one", "two", "four"]
    assert (await reader.position()).epoch.startswith("another")
    assert (await reader.position()).offset == reader.offsets["four"]


async def test_what_happens_while_it_is_compared_is_applied_afterwards(reader: Reader) -> None:
    await reader.happens("one")
    await reader.read_all()
    await reader.log.write(become_another_log)
    reader.on_compare = lambda: reader.happens("meanwhile")

    await reader.read_all()

    assert await reader.effects() == ["one", "meanwhile"]


async def test_a_comparison_is_counted_before_it_begins_and_reading_is_not(reader: Reader) -> None:
    async def count() -> None:
        counted.append(await reader.here.read(consumer.comparisons))

    counted: list[int] = []
    reader.on_compare = count
    await reader.happens("one", "two")
    await reader.read_all()
    await count()
    await reader.log.write(become_another_log)
    await reader.read_all()
    await reader.happens("three")
    await reader.read_all()
    await reader.log.write(forget_up_to, reader.offsets["three"])
    await reader.here.write(lambda db: db.execute_sql('UPDATE cursor SET "offset" = 1') and None)
    await reader.read_all()

    assert counted == [0, 1, 2]


async def test_a_log_that_is_shorter_than_what_was_read_of_it_is_compared_with(reader: Reader) -> None:
    await reader.happens("one", "two")
    await reader.read_all()
    # As after an older copy of the database was put back.
    delete = f"DELETE FROM logged_event WHERE id = {reader.offsets['two']}"
    await reader.log.write(lambda db: db.execute_sql(delete) and None)

    await reader.read_all()

    assert reader.compared == 1
    assert (await reader.position()).offset == reader.offsets["one"]


@pytest.mark.parametrize("read_before", [0, 1])
async def test_who_missed_events_that_are_forgotten_compares(reader: Reader, read_before: int) -> None:
    if read_before:
        await reader.happens("one")
        await reader.read_all()
        await reader.happens("two", "three")
    else:
        await reader.happens("one", "two", "three")
    await reader.log.write(forget_up_to, reader.offsets["two"])

    await reader.read_all()

    assert reader.compared == 1
    assert (await reader.position()).offset == reader.offsets["three"]


async def test_who_has_read_what_is_forgotten_reads_on(reader: Reader) -> None:
    await reader.happens("one", "two")
    await reader.read_all()
    await reader.happens("three")
    await reader.log.write(forget_up_to, reader.offsets["two"])

    await reader.read_all()
    await reader.log.write(forget_up_to, reader.offsets["three"])
    await reader.read_all()

    assert reader.compared == 0
    assert await reader.effects() == ["one", "two", "three"]


async def test_a_comparison_that_fails_is_made_again(reader: Reader) -> None:
    async def away() -> None:
        raise errors.unavailable()

    await reader.happens("one")
    await reader.read_all()
    before = await reader.position()
    await reader.log.write(become_another_log)
    reader.on_compare = away
    with pytest.raises(errors.Unavailable):
        await reader.consumer.step()
    assert await reader.position() == before
    reader.on_compare = reader._nothing

    await reader.read_all()

    assert reader.compared == 2
    assert (await reader.position()).epoch.startswith("another")


async def test_the_lag_is_what_is_still_to_be_applied(reader: Reader) -> None:
    for number in range(0, 450, 150):
        await reader.happens(*map(str, range(number, number + 150)))
    lags = []
    while True:
        more = await reader.consumer.step()
        lags.append(reader.lag)
        if not more:
            break

    assert lags == [250, 50, 0]


async def test_where_another_process_reads_the_log_there_is_no_lag(reader: Reader, tmp_path: Path) -> None:
    reader.poisoned = "one"
    await reader.happens("one")
    with pytest.raises(ValueError, match="cannot be applied"):
        await reader.consumer.step()
    before = reader.lag
    other = open_store(tmp_path / "here.db")

    async def leased() -> bool:
        return other.try_lease("consumer-there")

    async def no_lag() -> bool:
        return reader.lag == 0

    await until(leased)
    running = asyncio.create_task(reader.consumer.task().run(reader.here))
    await until(no_lag)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    other.close()

    assert before == 1
