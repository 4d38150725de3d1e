"""Threads that work for event loops."""

from __future__ import annotations

import asyncio
import contextvars
import queue
import threading
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple, TypeVar

Result = TypeVar("Result")


class _Job(NamedTuple):
    """Work for a thread, and who waits for it."""

    run: Callable[[], Any]
    future: asyncio.Future[Any]
    loop: asyncio.AbstractEventLoop
    context: contextvars.Context


class _Answer(NamedTuple):
    """What came of it."""

    future: asyncio.Future[Any]
    result: Any
    failure: BaseException | None


class Threads:
    """Threads that work, each in the context of who waits for it.

    To hand a read to a ThreadPoolExecutor takes about as long as the read itself, and here half of that: all answers
    that are there when an event loop wakes up are given at once.
    """

    def __init__(self, count: int, name: str) -> None:
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        # Of loops that are about to wake up.
        self._answers: dict[asyncio.AbstractEventLoop, list[_Answer]] = {}
        self._answering = threading.Lock()
        self._threads = [threading.Thread(target=self._work, name=f"{name}_{n}", daemon=True) for n in range(count)]
        for thread in self._threads:
            thread.start()

    async def run(self, work: Callable[[Callable[[], Result]], Result], query: Callable[[], Result]) -> Result:
        """Do something on a thread. What is cancelled before a thread takes it up does not begin."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Result] = loop.create_future()
        self._jobs.put(_Job(partial(work, query), future, loop, contextvars.copy_context()))
        return await future

    def shutdown(self) -> None:
        """Finish what was begun or waits."""
        for _ in self._threads:
            self._jobs.put(None)
        for thread in self._threads:
            thread.join()

    def _work(self) -> None:
        while self._do(self._jobs.get()):
            # Here nothing is kept of what was read while there is nothing to do.
            pass

    def _do(self, job: _Job | None) -> bool:
        """Do a job. False: it was the last."""
        if job is None:
            return False
        if job.future.cancelled():
            return True
        result = None
        failure: BaseException | None = None
        try:
            result = job.context.run(job.run)
        except StopIteration as raised:
            # A future takes none.
            failure = RuntimeError("a read raised StopIteration")
            failure.__cause__ = raised
        except BaseException as raised:
            failure = raised
        self._tell(job.loop, _Answer(job.future, result, failure))
        return True

    def _tell(self, loop: asyncio.AbstractEventLoop, answer: _Answer) -> None:
        with self._answering:
            told = self._answers.get(loop)
            if told is not None:
                told.append(answer)
                return
            self._answers[loop] = [answer]
        try:
            loop.call_soon_threadsafe(self._give, loop)
        except RuntimeError:
            # It is closed: nobody waits.
            with self._answering:
                self._answers.pop(loop)

    def _give(self, loop: asyncio.AbstractEventLoop) -> None:
        with self._answering:
            answers = self._answers.pop(loop)
        for future, result, failure in answers:
            if future.done():
                continue
            if failure is None:
                future.set_result(result)
            else:
                future.set_exception(failure)
