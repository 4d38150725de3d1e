"""Fixtures: services that stream, reached in each way, and no task that is left behind."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from tests.chassis.issuer import Issuer
from tests.chassis.streams.media import MediaPeer, media_running
from tests.people import until

KINDS = ("local", "remote")
# To a service, and from there to another: as the suite runs apart, together, and within one process.
WAYS = (("remote", "remote"), ("remote", "local"), ("local", "local"))


@pytest_asyncio.fixture(autouse=True)
async def nothing_is_left() -> AsyncIterator[None]:
    """No test leaves a task behind."""
    before = asyncio.all_tasks()
    yield

    async def left() -> set[str]:
        return {repr(task) for task in asyncio.all_tasks() - before - {asyncio.current_task()}}

    await until(left, set(), seconds=10)


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    """Of the channel to `peer`."""
    return str(request.param)


@pytest_asyncio.fixture
async def peer(kind: str, issuer: Issuer) -> AsyncIterator[MediaPeer]:
    """A service, reached in each of the two ways."""
    async with media_running(kind, issuer) as started:
        yield started


@pytest_asyncio.fixture(params=WAYS, ids="-".join)
async def back_and_front(request: pytest.FixtureRequest, issuer: Issuer) -> AsyncIterator[tuple[MediaPeer, MediaPeer]]:
    to_front, to_back = request.param
    async with media_running(to_back, issuer) as back, media_running(to_front, issuer) as front:

        async def upload(requests: AsyncIterator[Any]) -> Any:
            return await back.media.UploadMedia(requests, timeout=30)

        async def download(request: Any) -> AsyncIterator[Any]:
            async for chunk in back.media.DownloadMedia(request, timeout=30):
                yield chunk

        front.servicer.upload = upload
        front.servicer.download = download
        yield back, front


@pytest.fixture
def back(back_and_front: tuple[MediaPeer, MediaPeer]) -> MediaPeer:
    """A service that `front` calls."""
    return back_and_front[0]


@pytest.fixture
def front(back_and_front: tuple[MediaPeer, MediaPeer]) -> MediaPeer:
    """A service that passes streams on to another, and its responses back."""
    return back_and_front[1]
