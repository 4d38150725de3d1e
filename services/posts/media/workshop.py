"""Images are processed in processes of their own: of small rights and bounded memory, and behind whatever serves calls.

A few images are processed at a time, and the others wait in line. Decoders are given files of anybody. What one of
them does to its process, at worst, is that its image is refused and the next one waits for another process.
"""

from __future__ import annotations

import asyncio
import math
import os
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

from chassis import logs
from services.posts.media import wire
from services.posts.media.images import Processed

# The largest images took 490 MB of addresses: WebP of 25 million pixels with transparency.
MEMORY = 768 * 1024 * 1024
# The largest images took up to 2 s of CPU. Where calls leave a core no rest at all a process gets some hundredth of it.
SECONDS = 90.0
MOST_WAITING = 32
_START_SECONDS = 30.0
# How long a process that hangs up has to end by itself, so that its exit status tells why.
_END_SECONDS = 1.0
# What Python may need to find itself and this module. The rest, secrets among it, is nothing to a worker.
_ENVIRONMENT = ("LD_LIBRARY_PATH", "PYTHONHOME", "PYTHONPATH")

log = logs.get(__name__)


class WorkshopBusy(Exception):
    """An image cannot be processed at the moment, which has nothing to do with the image.

    Args:
        text: A sentence for the person who uploads it.
    """

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text


class WorkshopFailed(Exception):
    """An image cannot be processed: it ended its process, or took too much time or memory. Again, it would do the same.

    Args:
        text: A sentence for the person who uploads it, naming what to change.
        took_too_much: Whether it was time or memory.
    """

    def __init__(self, text: str, took_too_much: bool) -> None:
        super().__init__(text)
        self.text = text
        self.took_too_much = took_too_much


class Workshop:
    """Processes images, in the order in which they come, for calls of one event loop.

    Args:
        workers: How many images are processed at a time. Each takes a process, which is started when it is needed.
        most_waiting: How many more may wait. They are kept in memory.
        seconds: The most that processing an image may take.
        memory: The most bytes of addresses that a process may have.

    Attributes:
        waiting: How many images wait at the moment.
        busy: How many are being processed.
    """

    def __init__(
        self, workers: int = 1, most_waiting: int = MOST_WAITING, *, seconds: float = SECONDS, memory: int = MEMORY
    ) -> None:
        self.waiting = 0
        self.busy = 0
        self._most_waiting = most_waiting
        self._workers = [_Worker(seconds, memory) for _ in range(workers)]
        self._idle = self._workers.copy()
        self._free = asyncio.Semaphore(workers)
        self._threads = ThreadPoolExecutor(workers, thread_name_prefix="workshop")
        self._closed = False

    async def process(self, data: bytes | bytearray, declared: str) -> Processed:
        """As `images.process`. An image whose call is cancelled while it waits is not processed.

        Raises:
            ImageRefused: It is not taken; the error says why.
            WorkshopBusy: Too many are waiting.
            WorkshopFailed: Its process ended, or it took too much time or memory.
        """
        await self._turn()
        if self._closed:
            self._free.release()
            raise _closed()
        worker = self._idle.pop()
        self.busy += 1
        processing = asyncio.get_running_loop().run_in_executor(self._threads, worker.process, data, declared)
        processing.add_done_callback(lambda _: self._give_back(worker))
        # A worker cannot be told to stop: whether or not somebody still waits, it is busy until it has finished.
        return await asyncio.shield(processing)

    def close(self) -> None:
        """End all processes. Images that are being processed, or wait, are refused with `WorkshopBusy`."""
        self._closed = True
        for worker in self._workers:
            worker.close()
        self._threads.shutdown()
        for worker in self._workers:
            worker.end()

    async def _turn(self) -> None:
        if self._free.locked() and self.waiting >= self._most_waiting:
            raise WorkshopBusy("Too many images are being processed at the moment: try again in some seconds.")
        self.waiting += 1
        try:
            await self._free.acquire()
        finally:
            self.waiting -= 1

    def _give_back(self, worker: _Worker) -> None:
        self.busy -= 1
        self._idle.append(worker)
        self._free.release()


class _Worker:
    """Processes an image at a time, in a process that is started when it is needed, and anew when one has failed."""

    def __init__(self, seconds: float, memory: int) -> None:
        self._seconds = seconds
        self._command = [sys.executable, "-P", "-m", "services.posts.media.worker", str(memory)]
        self._command.append(str(math.ceil(seconds) + 1))
        self._process: _Process | None = None
        self._closed = False
        # Held while a process is started, so that none is after `close`.
        self._lock = threading.Lock()

    def process(self, data: bytes | bytearray, declared: str) -> Processed:
        """As `Workshop.process`; blocks."""
        process = self._ready()
        try:
            return process.ask(data, declared, time.monotonic() + self._seconds)
        except TimeoutError:
            why = f"took more than {self._seconds:g} seconds"
            raise self._failed(why, "is too slow to decode", took_too_much=True) from None
        except MemoryError:
            raise self._failed("took too much memory", "takes too much memory", took_too_much=True) from None
        except (EOFError, OSError):
            process.wait(_END_SECONDS)
            raise self._failed("ended its process", "cannot be decoded") from None
        except wire.Malformed as malformed:
            raise self._failed(f"brought an answer that is none: {malformed}", "cannot be decoded") from None

    def close(self) -> None:
        """Let what is being processed fail, and start no process any more. From any thread."""
        with self._lock:
            self._closed = True
            process = self._process
        if process is not None:
            process.kill()

    def end(self) -> int | None:
        """End the process, if there is one. Returns its exit status."""
        process, self._process = self._process, None
        return None if process is None else process.end()

    def _ready(self) -> _Process:
        """A process that waits for an image."""
        if self._process is not None and not self._process.is_waiting():
            # What it died of is no fault of the next image.
            log.warning("process for images ended while it was idle", status=self.end())
        if self._process is not None:
            return self._process
        try:
            return self._started()
        except (EOFError, OSError) as failure:
            status = self.end()
            if self._closed:
                raise _closed() from None
            log.error("process for images cannot start", status=status, error=repr(failure))
            raise WorkshopBusy("Images cannot be processed at the moment: try again later.") from None

    def _started(self) -> _Process:
        with self._lock:
            if self._closed:
                raise _closed()
            self._process = process = _Process(self._command)
        process.expect_ready(time.monotonic() + _START_SECONDS)
        return process

    def _failed(self, why: str, sentence: str, took_too_much: bool = False) -> WorkshopBusy | WorkshopFailed:
        status = self.end()
        if self._closed:
            return _closed()
        log.warning("image " + why, status=status)
        text = f"The image {sentence}: save it again as a JPEG file, with fewer pixels."
        return WorkshopFailed(text, took_too_much)


class _Process:
    """A running `services.posts.media.worker`, and the socket to it.

    Raises:
        OSError: It cannot be started.
    """

    def __init__(self, command: list[str]) -> None:
        self._socket, theirs = socket.socketpair()
        with theirs:
            try:
                self._popen = _started(command, theirs)
            except OSError:
                self._socket.close()
                raise

    def expect_ready(self, deadline: float) -> None:
        """Wait until it has started.

        Raises:
            EOFError, OSError: It ended, or takes longer.
        """
        self._receive(len(wire.READY), deadline)

    def is_waiting(self) -> bool:
        """Whether it lives and has nothing to say."""
        self._socket.setblocking(False)
        try:
            self._socket.recv(1)
        except BlockingIOError:
            return True
        except OSError:
            return False
        return False

    def ask(self, data: bytes | bytearray, declared: str, deadline: float) -> Processed:
        """What it makes of an image.

        Raises:
            TimeoutError: That takes longer.
            EOFError, OSError: It ended.
            ImageRefused, MemoryError, Malformed: As `wire.read_answer`.
        """
        self._send(wire.request_header(len(data), declared), deadline)
        self._send(data, deadline)
        return wire.read_answer(lambda count: self._receive(count, deadline))

    def wait(self, seconds: float) -> None:
        """Give it time to end by itself."""
        try:
            self._popen.wait(seconds)
        except subprocess.TimeoutExpired:
            return

    def kill(self) -> None:
        self._popen.kill()

    def end(self) -> int:
        """Returns its exit status."""
        self._popen.kill()
        status: int = self._popen.wait()
        self._socket.close()
        return status

    def _send(self, data: bytes | bytearray, deadline: float) -> None:
        self._set_deadline(deadline)
        self._socket.sendall(data)

    def _receive(self, count: int, deadline: float) -> bytes:
        data = bytearray(count)
        rest = memoryview(data)
        while rest:
            self._set_deadline(deadline)
            received = self._socket.recv_into(rest)
            if not received:
                raise EOFError
            rest = rest[received:]
        return bytes(data)

    def _set_deadline(self, deadline: float) -> None:
        remaining = deadline - time.monotonic()
        if remaining <= 0:
            raise TimeoutError
        self._socket.settimeout(remaining)


def _started(command: list[str], line: socket.socket) -> subprocess.Popen[bytes]:
    # Python does nothing between fork and exec here, where gRPC's locks might be held by threads that are not there. In
    # a group of its own no Ctrl-C reaches it; in a session of its own the kernel might weigh it without its niceness.
    return subprocess.Popen(
        command,
        stdin=line.fileno(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={name: os.environ[name] for name in _ENVIRONMENT if name in os.environ},
        process_group=0,
    )


def _closed() -> WorkshopBusy:
    return WorkshopBusy("The server is stopping: try again in some seconds.")
