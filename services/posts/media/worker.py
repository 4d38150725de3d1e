"""A process that turns images into their variants, one after the other: `python -m services.posts.media.worker`.

It takes images from the socket that it has in place of a standard input, and ends when nobody is at the other end any
more. Whoever takes it over by a file that its decoders do not withstand finds no secret, and little to do with it.
"""

from __future__ import annotations

import os
import resource
import signal
import socket
import sys
from contextlib import suppress
from io import BufferedReader
from pathlib import Path

from PIL import AvifImagePlugin

from services.posts.media import wire
from services.posts.media.images import process
from services.posts.media.refusal import ImageRefused

# Where there is no SCHED_IDLE.
_NICENESS = 10
_MAX_FILES = 16


def main() -> None:
    """Arguments: the most memory in bytes, and the most seconds that an image may take."""
    memory, seconds = (int(argument) for argument in sys.argv[1:])
    _confine(memory)
    # A thread of each core takes room for a stack of its own out of the memory that there is.
    AvifImagePlugin.DEFAULT_MAX_THREADS = 1
    with suppress(EOFError, ConnectionError), socket.socket(fileno=0) as workshop, workshop.makefile("rb") as requests:
        workshop.sendall(wire.READY)
        while True:
            workshop.sendall(_next_answer(requests, seconds))


def _confine(memory: int) -> None:
    os.nice(_NICENESS)
    if hasattr(os, "SCHED_IDLE"):
        # What serves calls interrupts it at once. Being nice alone, it would work on until the next tick of the clock,
        # since a suite is SCHED_BATCH: some milliseconds for each of the threads that a call passes through.
        with suppress(OSError):
            os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    with suppress(OSError):
        # If memory runs out, rather this process than the one that serves calls.
        Path("/proc/self/oom_score_adj").write_text("1000")
    _limit(resource.RLIMIT_AS, memory)
    _limit(resource.RLIMIT_CORE, 0)
    # What is written to a file, a socket being none.
    _limit(resource.RLIMIT_FSIZE, 0)
    _limit(resource.RLIMIT_NOFILE, _MAX_FILES)
    # No process, and no thread. Root has no such limit.
    _limit(resource.RLIMIT_NPROC, 0)


def _limit(what: int, most: int) -> None:
    _, hard = resource.getrlimit(what)
    most = most if hard == resource.RLIM_INFINITY else min(most, hard)
    resource.setrlimit(what, (most, most))


def _next_answer(requests: BufferedReader, seconds: int) -> bytes:
    def read(count: int) -> bytes:
        data = requests.read(count)
        if len(data) < count:
            raise EOFError
        return data

    request = wire.read_request(read)
    # The workshop looks at the time, too. Who looks if the workshop has died meanwhile? The kernel.
    signal.alarm(seconds)
    try:
        return wire.made(process(*request))
    except ImageRefused as refusal:
        return wire.refused(refusal)
    except MemoryError:
        return wire.out_of_memory()
    finally:
        signal.alarm(0)


if __name__ == "__main__":
    main()
