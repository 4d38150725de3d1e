"""Draws the pictures of the demo in processes of their own, and makes images of them as uploads do.

Each is in the store before its row is there, and nothing shows it until its post does. Whatever ends a demo early, the
collector of the posts service deletes what nothing shows after a day.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import resource_tracker
from random import Random

from chassis import clock
from chassis.query import compiled, param
from chassis.store import Database, Store
from services.posts.media import discards, records
from services.posts.media.blob_store import Blob, BlobStore
from services.posts.media.images import Processed
from services.posts.media.studio import new_folder, storing
from services.posts.models import Media
from suite import interruptible
from suite.demo_network import WantedPicture
from suite.demo_pictures import CONTENT_TYPE, draw, draw_portrait, uploaded

# A process takes a quarter of a second to start, in which another one draws so many.
_WORTH_A_PROCESS = 3
# So many more than are being drawn may be on their way: to a process, or from one to the store.
_AHEAD = 4

_set_create_time = compiled(Media.update(create_time=param("create_time")).where(Media.id == param("id")))


def processes_for(count: int) -> int:
    """How many processes so many pictures are worth on this machine."""
    return max(1, min(len(os.sched_getaffinity(0)), count // _WORTH_A_PROCESS))


def fill(
    store: Store, blobs: BlobStore, wanted: Iterable[WantedPicture], made: Callable[[int], None], processes: int
) -> list[int]:
    """Draw pictures; avatars are shown then, the others are to be shown within a day. Their ids, in order.

    Raises:
        ResourceExhausted, Unavailable: the store of images is full, or cannot be reached.
        BrokenProcessPool: a process that draws was ended.
    """
    # At its start it lets Ctrl-C in again: it is not to start together with the first process that draws.
    resource_tracker.ensure_running()
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(processes, context, _begin)
    try:
        return interruptible.run(_fill(store, blobs, wanted, made, pool, processes + _AHEAD))
    finally:
        pool.shutdown(cancel_futures=True)


async def _fill(
    store: Store,
    blobs: BlobStore,
    wanted: Iterable[WantedPicture],
    made: Callable[[int], None],
    pool: ProcessPoolExecutor,
    at_once: int,
) -> list[int]:
    media_ids: list[int] = []
    under_way: deque[asyncio.Task[Callable[[Database], int]]] = deque()

    async def finish_first() -> None:
        media_ids.append(await store.write(await under_way.popleft()))
        made(1)

    # Rows are added in order, whichever picture is ready first.
    try:
        for picture in wanted:
            if len(under_way) == at_once:
                await finish_first()
            under_way.append(asyncio.create_task(_stored(store, blobs, picture, pool)))
        while under_way:
            await finish_first()
    finally:
        for task in under_way:
            task.cancel()
        # How the others fail when one has is of no interest.
        await asyncio.gather(*under_way, return_exceptions=True)
    return media_ids


async def _stored(
    store: Store, blobs: BlobStore, picture: WantedPicture, pool: ProcessPoolExecutor
) -> Callable[[Database], int]:
    """Put a picture into the store. Returns the change that makes its row, and answers its id."""
    with _deaf_to_ctrl_c():
        drawing = asyncio.get_running_loop().run_in_executor(pool, _drawn, picture)
    alt_text, processed = await drawing
    folder = new_folder()
    await store.write(discards.hold, folder, picture.owner_id, clock.now() + records.KEPT_MICROS)
    with storing():
        await blobs.put(folder, [Blob(v.name, v.content_type, v.data) for v in processed.variants])

    def add(db: Database) -> int:
        media = records.add(db, picture.owner_id, folder, CONTENT_TYPE, processed, alt_text)
        _set_create_time.run(db, id=media.id, create_time=picture.create_time)
        if picture.portrait:
            records.set_avatar(db, picture.owner_id, media.id)
        return media.id

    return add


@contextmanager
def _deaf_to_ctrl_c() -> Iterator[None]:
    """Processes that are started meanwhile are never interrupted: Ctrl-C is the affair of the one that starts them."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _drawn(wanted: WantedPicture) -> tuple[str, Processed]:
    rng = Random(wanted.seed)
    picture = draw_portrait(rng) if wanted.portrait else draw(rng, wanted.number)
    return picture.alt_text, uploaded(picture)


def _begin() -> None:
    """A process begins to draw, and ends with the one that has started it, however that ends."""
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
