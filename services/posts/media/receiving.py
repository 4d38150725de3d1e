"""Receiving uploads: a stream of a header and chunks, within bounds of size, time and memory."""

from __future__ import annotations

import asyncio
import hashlib
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple, TypeVar

from chassis import errors
from chassis.errors import Reason

Part = TypeVar("Part")

# Of all uploads that are received or processed: eight of the biggest files, or forty of a telephone.
_MOST_BYTES = 160 * 1024 * 1024
# The biggest, and a small one beside.
_MOST_BYTES_OF_ONE_OWNER = 24 * 1024 * 1024
MOST_OF_ONE_OWNER = 4
_RETRY_SECONDS = 2.0


class Patience(NamedTuple):
    """How many seconds a client has to send the next part, and the whole file."""

    part: float = 10.0
    file: float = 120.0


PATIENCE = Patience()


class Received(NamedTuple):
    """A file, and its SHA-256."""

    data: bytearray
    sha256: bytes


class Room:
    """The memory for files that are under way."""

    def __init__(self) -> None:
        self._bytes = 0
        self._of_owner: Counter[int] = Counter()

    @contextmanager
    def memory(self, owner_id: int) -> Iterator[Callable[[int], None]]:
        """Memory for a file, to be taken by so many bytes as it comes: who announces much and sends nothing is in
        nobody's way.

        Raises:
            ResourceExhausted: what is taken is too much, with all that is under way, or all of theirs.
        """
        taken = 0

        def take(size: int) -> None:
            nonlocal taken
            if self._of_owner[owner_id] + size > _MOST_BYTES_OF_ONE_OWNER:
                raise busy("large images of the account are being uploaded; wait until one is done")
            if self._bytes + size > _MOST_BYTES:
                raise busy("too many images are being uploaded; try again")
            self._bytes += size
            self._of_owner[owner_id] += size
            taken += size

        try:
            yield take
        finally:
            self._bytes -= taken
            self._of_owner[owner_id] -= taken
            if not self._of_owner[owner_id]:
                del self._of_owner[owner_id]


async def receive(
    chunks: AsyncIterator[bytes], size: int, take: Callable[[int], None], patience: Patience = PATIENCE
) -> Received:
    """The file that comes in chunks.

    Args:
        take: Memory for so many bytes more, as of `Room`.

    Raises:
        InvalidArgument: it has more or fewer bytes than `size`.
        ResourceExhausted: there is no memory for it.
        DeadlineExceeded: a chunk, or the whole, takes too long.
    """
    data = bytearray()
    # Bit by bit, so that nothing waits for it long.
    sha256 = hashlib.sha256()
    try:
        async with asyncio.timeout(patience.file):
            while (chunk := await next_part(chunks, patience)) is not None:
                if len(data) + len(chunk) > size:
                    raise incomplete(f"the file has more than the {size:,} bytes that its header says")
                take(len(chunk))
                data += chunk
                sha256.update(chunk)
    except TimeoutError:
        raise too_slow(f"the upload took longer than {patience.file:g} seconds") from None
    if len(data) < size:
        raise incomplete(f"the stream ended after {len(data):,} of the {size:,} bytes that its header says")
    return Received(data, sha256.digest())


async def next_part(parts: AsyncIterator[Part], patience: Patience = PATIENCE) -> Part | None:
    """The next part of a stream; None at its end.

    Raises:
        DeadlineExceeded: it takes too long to come.
    """
    try:
        async with asyncio.timeout(patience.part):
            return await anext(parts, None)
    except TimeoutError:
        raise too_slow(f"the next part of the upload took longer than {patience.part:g} seconds") from None


def too_many() -> errors.ResourceExhausted:
    """Somebody uploads too much at once."""
    return busy(f"{MOST_OF_ONE_OWNER} images of the account are being uploaded; wait until one is done")


def busy(text: str) -> errors.ResourceExhausted:
    """Too many images are under way."""
    return errors.ResourceExhausted(Reason.REASON_UPLOADS_BUSY, text, retry_after=_RETRY_SECONDS)


def incomplete(text: str) -> errors.InvalidArgument:
    """An upload is not what it says."""
    return errors.InvalidArgument(Reason.REASON_UPLOAD_INCOMPLETE, text)


def too_slow(text: str) -> errors.DeadlineExceeded:
    """An upload takes too long."""
    return errors.DeadlineExceeded(Reason.REASON_UPLOAD_TOO_SLOW, text)
