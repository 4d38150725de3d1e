"""Files that their owners upload to the store themselves: started here, and finished when an image is made of one."""

from __future__ import annotations

from typing import NamedTuple

from chassis import errors
from chassis.errors import Reason
from chassis.query import compiled, param
from chassis.store import Database
from services.posts.media import discards, records
from services.posts.models import Upload


class UploadRow(NamedTuple):
    """A row of `Upload`."""

    id: int
    owner_id: int
    folder: str
    content_type: str
    size: int


_insert = compiled(
    Upload.insert(
        owner_id=param("owner_id"), folder=param("folder"), content_type=param("content_type"), size=param("size")
    ).returning(Upload.id)
)
_columns = [getattr(Upload, name) for name in UploadRow._fields]
_get = compiled(
    Upload.select(*_columns).where(Upload.id == param("id"), Upload.owner_id == param("owner_id")), row=UploadRow
)
_delete = compiled(Upload.delete().where(Upload.folder == param("folder")))
_delete_of_owner = compiled(Upload.delete().where(Upload.owner_id == param("owner_id")))


def start(db: Database, owner_id: int, folder: str, content_type: str, size: int) -> int:
    """Let a file be uploaded to the store within a day. Returns the id of the upload.

    Raises:
        Unauthenticated: the owner was deleted.
        ResourceExhausted: they have too many images that nothing shows.
    """
    records.begin(db, owner_id, folder, needs_room=True)
    ((upload_id,),) = _insert.all(db, owner_id=owner_id, folder=folder, content_type=content_type, size=size)
    return int(upload_id)


def get(db: Database, owner_id: int, upload_id: int) -> UploadRow:
    """An upload of one's own that was started.

    Raises:
        NotFound: there is none, or no longer.
    """
    found = _get.one(db, id=upload_id, owner_id=owner_id)
    if found is None:
        text = f"there is no upload {upload_id} of yours: it was finished, or started more than 24 hours ago"
        raise errors.NotFound(Reason.REASON_UPLOAD_NOT_FOUND, text)
    return found


def finish(db: Database, started: UploadRow) -> None:
    """An image is made of an upload in the same transaction: no second one can be, and the file goes.

    Raises:
        NotFound: somebody was faster.
    """
    get(db, started.owner_id, started.id)
    _delete.run(db, folder=started.folder)
    discards.add(db, started.folder, started.owner_id)


def forget(db: Database, folder: str) -> None:
    """The file is deleted, if there was one."""
    _delete.run(db, folder=folder)


def forget_of(db: Database, owner_id: int) -> None:
    """Forget all uploads of somebody who is gone."""
    _delete_of_owner.run(db, owner_id=owner_id)
