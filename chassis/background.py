"""Work that goes on beside the calls of a service: in one process at a time, and again after whatever went wrong."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import grpc

from chassis import clock, errors, events, logs, tombstones
from chassis.store import Database, Store
from chassis.tombstones import Gone

ERASURE = "erasure"
_SECONDS_AFTER_FAILURE = 1.0
_SECONDS_BETWEEN_TRIES = 0.25
_PAUSE_SECONDS = 0.1
_SECONDS_BETWEEN_SWEEPS = 60.0
_FORGOTTEN_AT_ONCE = 500
# A reader that was away for longer compares instead of reading on.
_EVENTS_KEPT_MICROS = 7 * 24 * 3600 * 1_000_000

log = logs.get(__name__)


@dataclass(frozen=True)
class BackgroundTask:
    """A piece of work that is done over and over.

    Attributes:
        name: What it is called in log lines, and in the name of its lease.
        step: Does a part of it that takes milliseconds. Answers whether there is more to do at once.
        pause_seconds: How long to wait when there is not.
        at_rest: Called again and again while another process does it, or may.
    """

    name: str
    step: Callable[[], Awaitable[bool]]
    pause_seconds: float
    at_rest: Callable[[], None] | None = None

    async def run(self, store: Store) -> None:
        """Work until cancelled, whenever no other process of the service does."""
        well = True
        while True:
            if not store.try_lease(self.name):
                if self.at_rest is not None:
                    self.at_rest()
                # Nobody tells when another process ends.
                await asyncio.sleep(_SECONDS_BETWEEN_TRIES)
                continue
            try:
                more = await self.step()
                if not well:
                    log.info("background task goes on", task=self.name)
                well = True
            except (grpc.aio.AioRpcError, errors.Error) as failure:
                # Another service is away, for instance.
                if well:
                    log.warning("background task cannot go on", task=self.name, error=errors.told(failure))
                well = False
                await asyncio.sleep(_SECONDS_AFTER_FAILURE)
            except Exception:
                log.exception("background task failed", task=self.name)
                await asyncio.sleep(_SECONDS_AFTER_FAILURE)
            else:
                await asyncio.sleep(0 if more else self.pause_seconds)


def erasing(store: Store, erase_some: Callable[[Database, Gone], None]) -> BackgroundTask:
    """Erases what is gone, some rows at a time."""

    async def step() -> bool:
        gone = await store.read(tombstones.pending)
        if gone is None:
            return False
        await store.write(erase_some, gone)
        return True

    return BackgroundTask(ERASURE, step, _PAUSE_SECONDS)


def forgetting_events(store: Store) -> BackgroundTask:
    """Deletes the events of a log that are older than any reader is."""

    async def step() -> bool:
        return await store.write(events.forget, clock.now() - _EVENTS_KEPT_MICROS, _FORGOTTEN_AT_ONCE) > 0

    return BackgroundTask("forgetting-events", step, _SECONDS_BETWEEN_SWEEPS)
