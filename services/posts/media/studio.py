"""From the bytes of a file to an image that can be shown: processed, its variants stored, and its row written."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TypeVar

from chassis import errors
from chassis.call import lasting
from chassis.errors import Reason
from chassis.store import Database, Store, after_commit
from services.posts.media import discards, records, refusal
from services.posts.media.blob_store import Blob, BlobMissing, BlobStore, BlobStoreError, BlobStoreFull, BlobTooBig
from services.posts.media.direct_uploads import UploadRow
from services.posts.media.images import Processed
from services.posts.media.receiving import busy, incomplete
from services.posts.media.records import MediaRow
from services.posts.media.refusal import ImageRefused
from services.posts.media.workshop import Workshop, WorkshopBusy, WorkshopFailed

Result = TypeVar("Result")

_REASONS = {
    refusal.Reason.EMPTY: Reason.REASON_UPLOAD_INCOMPLETE,
    refusal.Reason.UNKNOWN_FORMAT: Reason.REASON_IMAGE_FORMAT_UNKNOWN,
    refusal.Reason.ANOTHER_FORMAT: Reason.REASON_IMAGE_FORMAT_DIFFERS,
    refusal.Reason.TOO_MANY_PIXELS: Reason.REASON_IMAGE_TOO_LARGE,
    refusal.Reason.TOO_MANY_SCANS: Reason.REASON_IMAGE_TOO_LARGE,
    refusal.Reason.ANIMATED: Reason.REASON_IMAGE_ANIMATED,
    refusal.Reason.DAMAGED: Reason.REASON_IMAGE_DAMAGED,
}


class Studio:
    """Makes images of files."""

    def __init__(self, store: Store, blobs: BlobStore, workshop: Workshop) -> None:
        self._store = store
        self._blobs = blobs
        self._workshop = workshop
        # The loop itself does not keep them.
        self._giving_up: set[asyncio.Task[None]] = set()

    async def make(
        self,
        owner_id: int,
        data: bytes | bytearray,
        content_type: str,
        alt_text: str,
        write: Callable[[Callable[[Database], MediaRow]], Awaitable[Result]],
        needs_room: bool = True,
    ) -> Result:
        """Make an image of a file, or leave nothing behind.

        Args:
            content_type: Of the file, as who uploads it says.
            write: Runs the change that makes the row, with whatever else is to be in its transaction.
            needs_room: False if something that was counted as an image goes in that transaction.

        Raises:
            InvalidArgument: the file is no image that is taken.
            ResourceExhausted: too many images are under way, or there is no space left.
            Unavailable: the store cannot be reached.
        """
        processed = await self._process(data, content_type)
        folder = new_folder()
        held = added = False

        def keep() -> None:
            nonlocal added
            added = True

        def add(db: Database) -> MediaRow:
            after_commit(keep)
            return records.add(db, owner_id, folder, content_type, processed, alt_text)

        try:
            await self._store.write(records.begin, owner_id, folder, needs_room)
            held = True
            with storing():
                await self._blobs.put(folder, [Blob(v.name, v.content_type, v.data) for v in processed.variants])
            result = await write(add)
        except BaseException as failure:
            # Where the limit or a deletion refuses it nothing is held.
            if held or not isinstance(failure, errors.ResourceExhausted | errors.Unauthenticated):
                self._give_up(folder, owner_id)
            raise
        if not added:
            # The same request came twice, and the other was faster.
            self._give_up(folder, owner_id)
        return result

    async def uploaded(self, started: UploadRow, name: str) -> bytes:
        """The file that somebody uploaded to the store under a name.

        Raises:
            FailedPrecondition: there is none.
            InvalidArgument: it is not the one that was announced.
            Unavailable: the store cannot be reached.
        """
        with storing():
            try:
                data = await self._blobs.fetch(started.folder, name, started.size)
            except BlobMissing:
                text = "nothing was uploaded yet: post the form that StartUpload answered first"
                raise errors.FailedPrecondition(Reason.REASON_UPLOAD_MISSING, text) from None
            except BlobTooBig:
                data = b""
        if len(data) != started.size:
            text = f"what was uploaded is not the file of {started.size:,} bytes that was announced"
            raise incomplete(text)
        return data

    def _give_up(self, folder: str, owner_id: int) -> None:
        """Let a folder go, though the call may be over. If this cannot be written either, it goes after a day."""

        async def give_up() -> None:
            with suppress(errors.Error):
                await self._store.write(discards.give_up, folder, owner_id)

        giving_up = asyncio.get_running_loop().create_task(give_up(), context=lasting())
        self._giving_up.add(giving_up)
        giving_up.add_done_callback(self._giving_up.discard)

    async def _process(self, data: bytes | bytearray, content_type: str) -> Processed:
        try:
            return await self._workshop.process(data, content_type)
        except ImageRefused as refused:
            raise errors.InvalidArgument(_REASONS[refused.reason], refused.text) from None
        except WorkshopBusy as refused:
            raise busy(refused.text) from None
        except WorkshopFailed as failed:
            # What it died of may well be the image: nobody is told to try again.
            reason = Reason.REASON_IMAGE_TOO_LARGE if failed.took_too_much else Reason.REASON_IMAGE_DAMAGED
            raise errors.InvalidArgument(reason, failed.text) from None


def new_folder() -> str:
    """A name that nobody can guess: whoever knows it can see what is in the folder."""
    return secrets.token_hex(16)


@contextmanager
def storing() -> Iterator[None]:
    """Turn failures of the store of images into errors of the call."""
    try:
        yield
    except BlobStoreFull:
        text = "the store of images is full; nothing was stored"
        raise errors.ResourceExhausted(Reason.REASON_STORAGE_FULL, text, retry_after=5.0) from None
    except BlobStoreError:
        text = "the store of images cannot be reached; try again"
        raise errors.Unavailable(Reason.REASON_MEDIA_STORE_UNAVAILABLE, text, retry_after=5.0) from None
