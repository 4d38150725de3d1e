"""Deletes what nothing refers to from the store of images: after the commit that made it so, and until it is done."""

from __future__ import annotations

from chassis import clock, errors
from chassis.background import BackgroundTask
from chassis.errors import Reason
from chassis.store import Database, Store
from services.posts.media import direct_uploads, discards, records
from services.posts.media.blob_store import BlobStore, BlobStoreError

_AT_ONCE = 20
_PAUSE_SECONDS = 0.2
# What could not be deleted is tried again after so long, also by the process after one that died.
_AGAIN_MICROS = 10 * 1_000_000


def collecting(store: Store, blobs: BlobStore) -> BackgroundTask:
    """Deletes images that nothing showed for a day, and the blobs of all that were deleted."""

    async def step() -> bool:
        now = clock.now()
        if await store.read(records.any_expired, now):
            await store.write(records.delete_expired, now, _AT_ONCE)
        elif not await store.read(discards.any_due, now):
            return False
        await collect(store, blobs)
        return True

    return BackgroundTask("collector", step, _PAUSE_SECONDS)


async def collect(store: Store, blobs: BlobStore) -> int:
    """Delete some folders that are due. Returns how many.

    Raises:
        Unavailable: the store of images cannot be reached, or not for all of them.
    """
    now = clock.now()
    folders = await store.write(_begin, now)
    deleted = []
    failed: BlobStoreError | None = None
    try:
        for folder in folders:
            try:
                await blobs.delete(folder)
            except BlobStoreError as failure:
                # The others may be deleted all the same, and would be behind this one again and again.
                failed = failure
            else:
                deleted.append(folder)
    finally:
        if deleted:
            await store.write(discards.finish, deleted, now)
    if failed is not None:
        text = f"{len(folders) - len(deleted)} images could not be deleted: {failed}"
        raise errors.Unavailable(Reason.REASON_MEDIA_STORE_UNAVAILABLE, text)
    return len(deleted)


def _begin(db: Database, now: int) -> list[str]:
    folders = discards.begin_due(db, now, now + _AGAIN_MICROS, _AT_ONCE)
    for folder in folders:
        direct_uploads.forget(db, folder)
    return list(folders)
