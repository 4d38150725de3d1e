"""Images of a running suite: downloaded, loaded over HTTP, and looked for in its store."""

from __future__ import annotations

import asyncio
import secrets
import urllib.error
import urllib.request
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

from insta.gateway.v1 import media_pb2
from tests import databases
from tests.people import Person, small_picture, until
from tests.running import RunningSuite

_TIMEOUT_SECONDS = 30


class Downloaded(NamedTuple):
    """A variant, and its bytes as they came."""

    variant: media_pb2.Variant
    chunks: list[bytes]

    @property
    def data(self) -> bytes:
        return b"".join(self.chunks)


class Loaded(NamedTuple):
    """What an HTTP server answered."""

    status: int
    content_type: str
    body: bytes


async def download(person: Person, media_id: int, **asked: Any) -> Downloaded:
    """Download a variant of an image."""
    parts = person.media.DownloadMedia(media_pb2.DownloadMediaRequest(media_id=media_id, **asked))
    first, *rest = [part async for part in parts]
    assert first.WhichOneof("part") == "variant"
    assert all(part.WhichOneof("part") == "chunk" for part in rest)
    return Downloaded(first.variant, [part.chunk for part in rest])


def load(url: str) -> Loaded:
    """Load a variant as a browser does, without a token."""
    with _answer(url) as answer:
        return Loaded(answer.status, answer.headers.get_content_type(), answer.read())


async def no_longer_loaded(media: media_pb2.Media) -> None:
    """Wait until no variant of an image is to be had over HTTP."""

    async def statuses() -> set[int]:
        return {_status(variant.url) for variant in media.variants}

    await until(statuses, {404})


def _status(url: str) -> int:
    # Without what follows: one that is deleted meanwhile ends early.
    with _answer(url) as answer:
        return int(answer.status)


def _answer(url: str) -> Any:
    # Whatever the environment says of proxies: it is on this machine.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        return opener.open(url, timeout=_TIMEOUT_SECONDS)
    except urllib.error.HTTPError as failure:
        return failure


def header(**fields: Any) -> media_pb2.UploadMediaRequest:
    """The first part of an upload."""
    return media_pb2.UploadMediaRequest(header=media_pb2.UploadHeader(**fields))


def chunk(data: bytes) -> media_pb2.UploadMediaRequest:
    """Another part of an upload."""
    return media_pb2.UploadMediaRequest(chunk=data)


def folders(suite: RunningSuite) -> set[str]:
    """The folders in the store of a suite that keeps images in files, also those that are half written."""
    root = Path(suite.environment["INSTA_DATA"]) / "media"
    return {path.name for path in root.iterdir() if path.is_dir()}


def rows_of(suite: RunningSuite, person: Person) -> int:
    """How many images somebody has."""
    ((count,),) = databases.rows(suite, "posts", "SELECT COUNT(*) FROM media WHERE owner_id = ?", [person.id])
    return int(count)


def held_for(suite: RunningSuite, person: Person) -> int:
    """How many folders are kept for somebody that no image is made of, or are still to be deleted."""
    ((count,),) = databases.rows(suite, "posts", "SELECT COUNT(*) FROM discard WHERE owner_id = ?", [person.id])
    return int(count)


async def nothing_kept(suite: RunningSuite, person: Person) -> None:
    """Wait until the suite has no image of somebody, nor the remains of one."""

    async def kept() -> tuple[int, int, set[str]]:
        return rows_of(suite, person), held_for(suite, person), lost(suite)

    await until(kept, (0, 0, set()))


def lost(suite: RunningSuite) -> set[str]:
    """The folders in the store that belong to no image, and that nothing is going to delete."""
    found = folders(suite)
    known = databases.rows(suite, "posts", "SELECT folder FROM media UNION SELECT folder FROM discard")
    return found - {folder for (folder,) in known}


async def nothing_lost(suite: RunningSuite) -> None:
    """Wait until all that the store has belongs to an image, or is going to be deleted."""

    async def what() -> set[str]:
        return lost(suite)

    await until(what, set())


def give_images(suite: RunningSuite, person: Person, count: int) -> None:
    """Let somebody have so many images that nothing shows."""
    with closing(databases.Connection(databases.path_of(suite, "posts"))) as database:
        for _ in range(count):
            database.execute(
                "INSERT INTO media (owner_id, folder, content_type, width, height, blurhash, alt_text, variants,"
                " create_time, position, expire_time) VALUES (?, ?, 'image/png', 1, 1, '', '', '[]', 0, 0, ?)",
                [person.id, secrets.token_hex(16), 2**60],
            )


class Hanging:
    """An upload that stops in the middle."""

    def __init__(self, person: Person) -> None:
        self.under_way = asyncio.Event()
        self._never = asyncio.Event()
        self.call = person.media.UploadMedia(self._parts())

    async def _parts(self) -> AsyncIterator[media_pb2.UploadMediaRequest]:
        data = small_picture()
        yield header(content_type="image/png", size=len(data))
        yield chunk(data[:10])
        self.under_way.set()
        await self._never.wait()
