"""Receiving uploads: a stream of a header and chunks, within bounds of size, time and memory."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import NamedTuple, TypeVar

from chassis import errors
from chassis.errors import Reason

Part = TypeVar("Part")

# Of all uploads that are received or processed: eight of the biggest files, or forty of a telephone.
_MOST_BYTES = 160 * 1024 * 1024
_MOST_OF_ONE_OWNER = 4
_RETRY_SECONDS = 2.0


class Patience(NamedTuple):
    """How many seconds a client has to send the next part, and the whole file."""

    part: float = 10.0
    file: float = 120.0


PATIENCE = Patience()


class Room:
    """Who may upload at once, and the memory for files that are under way."""

    def __init__(self) -> None:
        self._bytes = 0
        self._by_owner: Counter[int] = Counter()

    @contextmanager
    def entered(self, owner_id: int) -> Iterator[None]:
        """Let somebody upload: from before anything is waited for, so that nobody waits here many times at once.

        Raises:
            ResourceExhausted: too many uploads of theirs are under way.
        """
        if self._by_owner[owner_id] >= _MOST_OF_ONE_OWNER:
            raise busy(f"{_MOST_OF_ONE_OWNER} images of the account are being uploaded; wait until one is done")
        self._by_owner[owner_id] += 1
        try:
            yield
        finally:
            self._by_owner[owner_id] -= 1
            if not self._by_owner[owner_id]:
                del self._by_owner[owner_id]

    @contextmanager
    def taken(self, size: int) -> Iterator[None]:
        """Keep room for a file.

        Raises:
            ResourceExhausted: too much is under way.
        """
        if self._bytes + size > _MOST_BYTES:
            raise busy("too many images are being uploaded; try again")
        self._bytes += size
        try:
            yield
        finally:
            self._bytes -= size


async def receive(chunks: AsyncIterator[bytes], size: int, patience: Patience = PATIENCE) -> bytes:
    """The file that comes in chunks.

    Raises:
        InvalidArgument: it has more or fewer bytes than `size`.
        DeadlineExceeded: a chunk, or the whole, takes too long.
    """
    data = bytearray()
    try:
        async with asyncio.timeout(patience.file):
            while (chunk := await next_part(chunks, patience)) is not None:
                data += chunk
                if len(data) > size:
                    raise incomplete(f"the file has more than the {size:,} bytes that its header says")
    except TimeoutError:
        raise too_slow(f"the upload took longer than {patience.file:g} seconds") from None
    if len(data) < size:
        raise incomplete(f"the stream ended after {len(data):,} of the {size:,} bytes that its header says")
    return bytes(data)


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


def busy(text: str) -> errors.ResourceExhausted:
    """Too many images are under way."""
    return errors.ResourceExhausted(Reason.REASON_UPLOADS_BUSY, text, retry_after=_RETRY_SECONDS)


def incomplete(text: str) -> errors.InvalidArgument:
    """An upload is not what it says."""
    return errors.InvalidArgument(Reason.REASON_UPLOAD_INCOMPLETE, text)


def too_slow(text: str) -> errors.DeadlineExceeded:
    """An upload takes too long."""
    return errors.DeadlineExceeded(Reason.REASON_UPLOAD_TOO_SLOW, text)
