"""What both kinds of channel do alike with the messages that a caller streams."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

from chassis import logs

log = logs.get(__name__)


async def close(requests: AsyncIterator[Any]) -> None:
    """Close the generator of a call that has ended, also of one that did not take all of it.

    How it takes that is no matter of the call.
    """
    if not isinstance(requests, AsyncGenerator):
        return
    try:
        await requests.aclose()
    except Exception as failure:
        log.warning("a stream of requests did not end well", exc_info=failure)


def being_cancelled() -> bool:
    """Whether somebody cancels the task at work: else a cancellation is only what it waited for that was cancelled."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
