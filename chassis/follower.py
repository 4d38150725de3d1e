"""Follows the event log of a service in memory: from a moment before its start, and storing nothing."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, NamedTuple, Protocol

import grpc

from chassis import errors, logs

_SECONDS_AFTER_FAILURE = 0.5
_PAUSE_SECONDS = 0.02
_LIMIT = 1000

log = logs.get(__name__)


class Batch(Protocol):
    """An answer of a log: its events, where to read on, the name of the log, and its newest event."""

    @property
    def events(self) -> Sequence[Any]: ...
    @property
    def next_offset(self) -> int: ...
    @property
    def epoch(self) -> str: ...
    @property
    def head_offset(self) -> int: ...
    @property
    def newest_offset(self) -> int: ...


class _Mark(NamedTuple):
    """When a log was asked, and the offset of its newest event then: who was told that one knows what was to be known.

    It may be told later only, and after others that are newer still (`events.py`).
    """

    asked_at: float
    offset: int


class Follower:
    """Passes each event of a log on as it happens.

    Args:
        name: Of the log, in log lines.
        read: Answers so many events after an offset, or from its own start time on if the offset is 0; waits for one.
    """

    def __init__(self, name: str, read: Callable[[int, int], Awaitable[Batch]]) -> None:
        self._name = name
        self._read = read
        self._subscribers: list[Callable[[Any], None]] = []
        self._to_restart: list[Callable[[], None]] = []
        self._offset = 0
        self._epoch = ""
        self._heard_at = float("-inf")
        self._answered_at = float("-inf")
        self._mark: _Mark | None = None
        self._first_heard = asyncio.Event()

    def age(self) -> float:
        """Seconds since the log was last heard to its end; infinite until it was."""
        return time.monotonic() - self._heard_at

    def subscribe(self, apply: Callable[[Any], None], restart: Callable[[], None] = lambda: None) -> None:
        """Pass events on from now on.

        Args:
            apply: Takes an event. May get one again, after the log was replaced by an older copy of itself.
            restart: Called before that: what was heard until then may not have happened.
        """
        self._subscribers.append(apply)
        self._to_restart.append(restart)

    def silence(self) -> float:
        """Seconds since the log last answered; infinite until it did."""
        return time.monotonic() - self._answered_at

    async def wait_until_heard(self, seconds: float) -> bool:
        """Wait until the log was heard once. False: it was not in this time."""
        try:
            await asyncio.wait_for(self._first_heard.wait(), seconds)
        except TimeoutError:
            return False
        return True

    async def run(self) -> None:
        """Follow until cancelled. What goes wrong is logged and tried again: no event is passed over."""
        well = True
        while True:
            try:
                await self._follow_on()
                if not well:
                    log.info("event log is read again", log=self._name)
                well = True
            except (grpc.aio.AioRpcError, errors.Error) as failure:
                if well:
                    log.warning("event log cannot be read", log=self._name, error=errors.told(failure))
                well = False
                await asyncio.sleep(_SECONDS_AFTER_FAILURE)
            except Exception:
                log.exception("event cannot be applied", log=self._name, offset=self._offset)
                await asyncio.sleep(_SECONDS_AFTER_FAILURE)

    async def _follow_on(self) -> None:
        began = time.monotonic()
        batch = await self._read(self._offset, _LIMIT)
        self._answered_at = time.monotonic()
        if self._epoch and (batch.epoch != self._epoch or batch.next_offset < self._offset):
            log.warning("event log was replaced; reading it from the start", log=self._name)
            self._offset, self._epoch, self._mark = 0, "", None
            for restart in self._to_restart:
                restart()
            return
        for event in batch.events:
            for apply in self._subscribers:
                apply(event)
        self._offset, self._epoch = batch.next_offset, batch.epoch
        # Of what happened while the answer was under way it says nothing: it is as old as the question, to be safe.
        # A service of an older version tells its head only.
        newest = max(batch.newest_offset, batch.head_offset)
        if self._mark is None or batch.next_offset >= newest:
            self._mark = _Mark(began, newest)
        if batch.next_offset >= self._mark.offset:
            self._heard_at, self._mark = self._mark.asked_at, None
            self._first_heard.set()
        # A log whose server is about to stop answers at once. One in this process does, too: others have their turn.
        await asyncio.sleep(0 if batch.events else _PAUSE_SECONDS)
