"""Blocking calls that are waited for so long and no longer."""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeVar

Result = TypeVar("Result")


@dataclass(eq=False)
class _UnderWay:
    answer: asyncio.Future[Any]
    is_given_up: bool = False


class TimedCalls:
    """Runs calls on threads, so many at once, and gives up on one that takes too long.

    A thread cannot be ended: one that was given up on stays until its call returns, if ever, and holds up neither other
    calls nor the end of the process. There may be as many of these again. While there are, calls fail at once.

    Args:
        seconds: How long a call may take, with its wait for others.
        too_slow: Makes what is raised of one that takes longer.
    """

    def __init__(self, name: str, at_once: int, seconds: float, too_slow: Callable[[], Exception]) -> None:
        self._name = name
        self._turns = asyncio.Semaphore(at_once)
        self._most_given_up = at_once
        self._given_up = 0
        self._seconds = seconds
        self._too_slow = too_slow

    async def run(self, call: Callable[[], Result]) -> Result:
        """What a call returns, or raises. It goes on if who waits for it is cancelled."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._seconds
        if self._given_up >= self._most_given_up:
            raise self._too_slow()
        try:
            async with asyncio.timeout_at(deadline):
                await self._turns.acquire()
        except TimeoutError:
            raise self._too_slow() from None
        under_way = _UnderWay(loop.create_future())
        timer = loop.call_at(deadline, self._give_up, under_way)

        def work() -> None:
            try:
                outcome: tuple[Any, BaseException | None] = call(), None
            except BaseException as failure:
                outcome = None, failure
            # A loop that is closed has nobody left who waits.
            with suppress(RuntimeError):
                loop.call_soon_threadsafe(self._end, under_way, timer, *outcome)

        try:
            threading.Thread(target=work, name=self._name, daemon=True).start()
        except RuntimeError:
            # There are no more threads to be had.
            self._end(under_way, timer, None, self._too_slow())
        return await under_way.answer  # type: ignore[no-any-return]

    def run_now(self, call: Callable[[], Result]) -> Result:
        """As `run`, for commands: it needs no event loop, and takes no turn."""
        answer: concurrent.futures.Future[Result] = concurrent.futures.Future()

        def work() -> None:
            try:
                answer.set_result(call())
            except BaseException as failure:
                answer.set_exception(failure)

        threading.Thread(target=work, name=self._name, daemon=True).start()
        try:
            return answer.result(self._seconds)
        except TimeoutError:
            raise self._too_slow() from None

    def _give_up(self, under_way: _UnderWay) -> None:
        under_way.is_given_up = True
        self._given_up += 1
        self._turns.release()
        if not under_way.answer.done():
            under_way.answer.set_exception(self._too_slow())

    def _end(
        self, under_way: _UnderWay, timer: asyncio.TimerHandle, result: object, failure: BaseException | None
    ) -> None:
        timer.cancel()
        if under_way.is_given_up:
            self._given_up -= 1
        else:
            self._turns.release()
        if under_way.answer.done():
            return
        if failure is None:
            under_way.answer.set_result(result)
        else:
            under_way.answer.set_exception(failure)
