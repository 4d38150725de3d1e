"""Blocking calls that take too long are given up on, and hold up no others."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator

import pytest

from services.posts.media.timed_calls import TimedCalls
from tests.people import until


class TooSlowError(Exception):
    pass


@pytest.fixture
def stuck() -> Iterator[threading.Event]:
    """What calls of a test may wait for. It comes at its end, so that no thread is left."""
    event = threading.Event()
    yield event
    event.set()


def timed_calls(seconds: float) -> TimedCalls:
    return TimedCalls("test", 2, seconds, TooSlowError)


async def test_what_a_call_returns_or_raises_is_handed_on() -> None:
    calls = timed_calls(20)

    assert await calls.run(lambda: 42) == 42
    with pytest.raises(ZeroDivisionError):
        await calls.run(lambda: 1 // 0)
    assert calls.run_now(lambda: 42) == 42
    with pytest.raises(ZeroDivisionError):
        calls.run_now(lambda: 1 // 0)


async def test_so_many_run_at_once_and_the_others_after_them(stuck: threading.Event) -> None:
    calls, begun = timed_calls(20), 0

    def call() -> None:
        nonlocal begun
        begun += 1
        stuck.wait()

    async def how_many() -> int:
        return begun

    running = [asyncio.create_task(calls.run(call)) for _ in range(5)]
    await until(how_many, 2)
    await asyncio.sleep(0.05)
    assert begun == 2
    stuck.set()
    await asyncio.gather(*running)
    assert begun == 5


async def test_a_call_that_is_too_slow_is_given_up_on_and_others_have_its_turn(stuck: threading.Event) -> None:
    calls, began = timed_calls(0.2), time.monotonic()

    failures = await asyncio.gather(*(calls.run(stuck.wait) for _ in range(2)), return_exceptions=True)

    assert [type(failure) for failure in failures] == [TooSlowError] * 2
    assert 0.2 <= time.monotonic() - began < 5
    # As many hang as may.
    with pytest.raises(TooSlowError):
        await calls.run(lambda: 42)
    stuck.set()

    async def answer() -> int:
        try:
            return await calls.run(lambda: 42)
        except TooSlowError:
            return 0

    await until(answer, 42)


def test_a_command_gives_up_on_a_call_that_is_too_slow(stuck: threading.Event) -> None:
    began = time.monotonic()

    with pytest.raises(TooSlowError):
        timed_calls(0.1).run_now(stuck.wait)

    assert time.monotonic() - began < 3


async def test_a_call_that_hangs_leaves_turns_for_others(stuck: threading.Event) -> None:
    calls = timed_calls(0.2)
    with pytest.raises(TooSlowError):
        await calls.run(stuck.wait)

    assert await asyncio.gather(*(calls.run(lambda: 42) for _ in range(5))) == [42] * 5


async def test_the_wait_for_a_turn_counts(stuck: threading.Event) -> None:
    calls = timed_calls(0.3)
    running = [asyncio.create_task(calls.run(stuck.wait)) for _ in range(2)]
    await asyncio.sleep(0)
    began = time.monotonic()

    with pytest.raises(TooSlowError):
        await calls.run(stuck.wait)

    assert time.monotonic() - began < 5
    await asyncio.gather(*running, return_exceptions=True)


async def test_a_call_nobody_waits_for_any_more_has_its_turn_to_its_end(stuck: threading.Event) -> None:
    calls = timed_calls(20)
    running = [asyncio.create_task(calls.run(stuck.wait)) for _ in range(2)]
    await asyncio.sleep(0)
    for task in running:
        task.cancel()
    waiting = asyncio.create_task(calls.run(lambda: 42))
    await asyncio.sleep(0.05)

    assert not waiting.done()
    stuck.set()
    assert await asyncio.wait_for(waiting, 10) == 42
