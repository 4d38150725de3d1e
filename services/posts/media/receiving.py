"""Receiving uploads: a stream of a header and chunks, within bounds of size, time and memory."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import TypeVar

from chassis import errors
from chassis.errors import Reason

Part = TypeVar("Part")

CHUNK_SECONDS = 10.0
UPLOAD_SECONDS = 120.0
# Of all uploads that are received or processed: eight of the biggest files, or forty of a telephone.
_MOST_BYTES = 160 * 1024 * 1024
_MOST_OF_ONE_OWNER = 4
_RETRY_SECONDS = 2.0


class Room:
    """The memory for files that are under way."""

    def __init__(self) -> None:
        self._bytes = 0
        self._by_owner: Counter[int] = Counter()

    @contextmanager
    def taken(self, owner_id: int, size: int) -> Iterator[None]:
        """Keep room for a file of somebody.

        Raises:
            ResourceExhausted: too much is under way, by all or by them.
        """
        if self._by_owner[owner_id] >= _MOST_OF_ONE_OWNER:
            raise busy(f"{_MOST_OF_ONE_OWNER} images of the account are being uploaded; wait until one is done")
        if self._bytes + size > _MOST_BYTES:
            raise busy("too many images are being uploaded; try again")
        self._bytes += size
        self._by_owner[owner_id] += 1
        try:
            yield
        finally:
            self._bytes -= size
            self._by_owner[owner_id] -= 1
            if not self._by_owner[owner_id]:
                del self._by_owner[owner_id]


async def receive(chunks: AsyncIterator[bytes], size: int) -> bytes:
    """The file that comes in chunks.

    Raises:
        InvalidArgument: it has more or fewer bytes than `size`.
        DeadlineExceeded: a chunk, or the whole, takes too long.
    """
    data = bytearray()
    try:
        async with asyncio.timeout(UPLOAD_SECONDS):
            while (chunk := await next_part(chunks)) is not None:
                data += chunk
                if len(data) > size:
                    raise incomplete(f"the file has more than the {size:,} bytes that its header says")
    except TimeoutError:
        raise too_slow(f"the upload took longer than {UPLOAD_SECONDS:g} seconds") from None
    if len(data) < size:
        raise incomplete(f"the stream ended after {len(data):,} of the {size:,} bytes that its header says")
    return bytes(data)


async def next_part(parts: AsyncIterator[Part]) -> Part | None:
    """The next part of a stream; None at its end.

    Raises:
        DeadlineExceeded: it takes too long to come.
    """
    try:
        async with asyncio.timeout(CHUNK_SECONDS):
            return await anext(parts, None)
    except TimeoutError:
        raise too_slow(f"the next part of the upload took longer than {CHUNK_SECONDS:g} seconds") from None


def busy(text: str) -> errors.ResourceExhausted:
    """Too many images are under way."""
    return errors.ResourceExhausted(Reason.REASON_UPLOADS_BUSY, text, retry_after=_RETRY_SECONDS)


def incomplete(text: str) -> errors.InvalidArgument:
    """An upload is not what it says."""
    return errors.InvalidArgument(Reason.REASON_UPLOAD_INCOMPLETE, text)


def too_slow(text: str) -> errors.DeadlineExceeded:
    """An upload takes too long."""
    return errors.DeadlineExceeded(Reason.REASON_UPLOAD_TOO_SLOW, text)
