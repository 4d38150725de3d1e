"""Uploads within bounds of size, time and memory."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import ExitStack
from typing import Any

import pytest

from chassis import errors
from services.posts.media.receiving import Patience, Room, receive

MIB = 1024 * 1024
QUICK = Patience(part=0.05, file=0.2)


async def stream(*parts: bytes, seconds: float = 0.0) -> AsyncIterator[bytes]:
    """Chunks that come one by one."""
    for part in parts:
        await asyncio.sleep(seconds)
        yield part


async def refused(call: Any) -> errors.Error:
    with pytest.raises(errors.Error) as caught:
        await call
    return caught.value


def full(room: Room, owner_id: int, size: int) -> errors.Error:
    """How a room refuses an upload. It must."""
    with pytest.raises(errors.ResourceExhausted) as caught, room.entered(owner_id), room.taken(size):
        pass
    return caught.value


async def test_chunks_become_a_file() -> None:
    assert await receive(stream(b"a", b"bc", b"def"), 6) == b"abcdef"


@pytest.mark.parametrize("parts", [(), (b"a",), (b"a", b"b")])
async def test_a_stream_that_ends_early_is_refused(parts: tuple[bytes, ...]) -> None:
    failed = await refused(receive(stream(*parts), 3))

    assert (failed.code.name, failed.reason_name) == ("INVALID_ARGUMENT", "UPLOAD_INCOMPLETE")


async def test_a_stream_without_an_end_is_left_as_soon_as_there_is_too_much() -> None:
    taken = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal taken
        while True:
            taken += 1
            yield bytes(1000)

    failed = await refused(receive(endless(), 10_500))

    assert failed.reason_name == "UPLOAD_INCOMPLETE"
    assert taken == 11


async def test_who_takes_too_long_for_a_chunk_is_refused() -> None:
    began = time.monotonic()

    failed = await refused(receive(stream(b"a", b"b", seconds=5), 2, QUICK))

    assert (failed.code.name, failed.reason_name) == ("DEADLINE_EXCEEDED", "UPLOAD_TOO_SLOW")
    assert "0.05 seconds" in failed.text
    assert time.monotonic() - began < 2


async def test_who_takes_too_long_for_the_file_is_refused_although_chunks_come() -> None:
    failed = await refused(receive(stream(*[b"a"] * 1000, seconds=0.01), 1000, QUICK))

    assert failed.reason_name == "UPLOAD_TOO_SLOW"
    assert "0.2 seconds" in failed.text


async def test_a_cancelled_upload_is_cancelled() -> None:
    receiving = asyncio.create_task(receive(stream(b"a", b"b", seconds=5), 2))
    await asyncio.sleep(0)
    receiving.cancel()

    with pytest.raises(asyncio.CancelledError):
        await receiving


def test_one_person_uploads_four_files_at_once() -> None:
    room = Room()
    with ExitStack() as under_way:
        for _ in range(4):
            under_way.enter_context(room.entered(1))

        failed = full(room, 1, 1)
        with room.entered(2), room.taken(1):
            pass

    assert (failed.code.name, failed.reason_name) == ("RESOURCE_EXHAUSTED", "UPLOADS_BUSY")
    assert failed.retry_after == 2
    with room.entered(1), room.taken(1):
        pass


def test_all_together_upload_as_much_as_there_is_room_for() -> None:
    room = Room()
    with ExitStack() as under_way:
        for _ in range(8):
            under_way.enter_context(room.taken(20 * MIB))

        failed = full(room, 1, 1)

    assert (failed.code.name, failed.reason_name) == ("RESOURCE_EXHAUSTED", "UPLOADS_BUSY")
    assert failed.retry_after == 2
    with room.taken(160 * MIB):
        assert full(room, 1, 1).reason_name == "UPLOADS_BUSY"


def test_an_upload_that_fails_or_was_refused_leaves_its_room() -> None:
    room = Room()
    for _ in range(20):
        full(room, 1, 161 * MIB)
        with pytest.raises(ValueError), room.entered(1), room.taken(100 * MIB):  # noqa: PT011
            raise ValueError

    with room.entered(1), room.taken(160 * MIB):
        pass
