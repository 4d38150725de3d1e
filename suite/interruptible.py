"""Work of commands on an event loop that Ctrl-C ends in order."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

Result = TypeVar("Result")


def run(work: Coroutine[Any, Any, Result]) -> Result:
    """Run a coroutine, as `asyncio.run` does. That one cancels it at the moment of Ctrl-C: also while the loop takes
    over what another thread has done, and then it prints a traceback. Here the loop's turn is finished first.

    Raises:
        KeyboardInterrupt: Ctrl-C ended it.
    """
    # Only the main thread hears of it, and only if it is not ignored, as in the background of a script.
    hears = threading.current_thread() is threading.main_thread()
    hears = hears and signal.getsignal(signal.SIGINT) is signal.default_int_handler
    interrupted = False

    async def main() -> Result:
        task = asyncio.current_task()
        assert task is not None

        def interrupt() -> None:
            nonlocal interrupted
            interrupted = True
            task.cancel()

        loop = asyncio.get_running_loop()
        if hears:
            loop.add_signal_handler(signal.SIGINT, interrupt)
        try:
            return await work
        finally:
            if hears:
                loop.remove_signal_handler(signal.SIGINT)

    try:
        return asyncio.run(main())
    except asyncio.CancelledError:
        if interrupted:
            raise KeyboardInterrupt from None
        raise
