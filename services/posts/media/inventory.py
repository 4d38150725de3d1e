"""What the store of images holds, beside what the database knows of it.

Each folder is looked up after it was listed. Before its first blob was stored it was among the discards; so one that is
unknown was deleted since it was listed, or nothing will ever refer to it.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from chassis.consistency import AT_ONCE
from chassis.query import compiled, param
from chassis.store import Database, Store
from services.posts.media import discards
from services.posts.media.blob_store import BlobStore, StoredFolder
from services.posts.media.images import variant_name
from services.posts.models import Discard, Media

# After the names of all folders, which are hexadecimal, also where a database sorts as people do.
_END = "g"


class KnownImage(NamedTuple):
    """What a row of `Media` says of a folder."""

    folder: str
    id: int
    owner_id: int
    post_id: int | None
    expire_time: int | None
    variants: str

    @property
    def blobs(self) -> set[str]:
        """The blobs that have to be there."""
        return {variant_name(width, content_type) for width, _, content_type, _ in json.loads(self.variants)}


class KnownDiscard(NamedTuple):
    """What a row of `Discard` says of a folder."""

    folder: str
    due_time: int


class Entry(NamedTuple):
    """A folder that is in the store, known to the database, or both. At most one of `image` and `discard` is there."""

    folder: str
    stored: StoredFolder | None
    image: KnownImage | None
    discard: KnownDiscard | None

    @property
    def unknown(self) -> bool:
        """Whether the database knows nothing of it."""
        return self.image is None and self.discard is None

    @property
    def missing(self) -> set[str]:
        """The blobs of an image that the store does not have."""
        if self.image is None:
            return set()
        return self.image.blobs - (self.stored.blobs if self.stored else frozenset())


class _Known(NamedTuple):
    """What is known of the folders up to one."""

    images: Sequence[KnownImage]
    discards: Sequence[KnownDiscard]
    upto: str


_images = compiled(
    Media.select(*(getattr(Media, name) for name in KnownImage._fields))
    .where(Media.folder > param("after"), Media.folder <= param("upto"))
    .order_by(Media.folder)
    .limit(AT_ONCE),
    row=KnownImage,
)
_discards = compiled(
    Discard.select(*(getattr(Discard, name) for name in KnownDiscard._fields))
    .where(Discard.folder > param("after"), Discard.folder <= param("upto"))
    .order_by(Discard.folder)
    .limit(AT_ONCE),
    row=KnownDiscard,
)
_is_image = compiled(Media.select(Media.id).where(Media.folder == param("folder")))
_forget = compiled(Media.delete().where(Media.folder == param("folder")))
_is_discard = compiled(Discard.select(Discard.folder).where(Discard.folder == param("folder")))


def entries(store: Store, blobs: BlobStore) -> Iterator[Entry]:
    """All folders in the order of their names, some hundred of which are in memory at once.

    Raises:
        BlobStoreAway: the store cannot be listed, or not to the end.
    """
    listed = blobs.folders()
    waiting: list[StoredFolder] = []
    after = ""
    while after != _END:
        waiting += itertools.islice(listed, AT_ONCE - len(waiting))
        known = store.read_now(_known, after, waiting[-1].name if len(waiting) == AT_ONCE else _END)
        here = [stored for stored in waiting if stored.name <= known.upto]
        yield from _merged(here, known)
        del waiting[: len(here)]
        after = known.upto


def images(db: Database) -> Iterator[KnownImage]:
    """All images in the order of their folders. Whoever is at one may delete it."""
    page: Sequence[KnownImage] = _images.all(db, after="", upto=_END)
    while page:
        yield from page
        page = _images.all(db, after=page[-1].folder, upto=_END)


def is_image(db: Database, folder: str) -> bool:
    """Whether a folder is an image."""
    return bool(_is_image.all(db, folder=folder))


def forget_image(db: Database, folder: str) -> None:
    """Delete the row of an image whose blobs are gone."""
    _forget.run(db, folder=folder)


def discard_unknown(db: Database, folders: Iterable[str]) -> int:
    """Let those of these folders be deleted of which nothing is known. Returns how many."""
    return sum(discards.add_new(db, folder) for folder in folders if not is_image(db, folder))


def known_among(db: Database, folders: Iterable[str]) -> list[str]:
    """Those of these folders that are known still: nobody has deleted them to the end."""
    return [folder for folder in folders if is_image(db, folder) or _is_discard.all(db, folder=folder)]


def _known(db: Database, after: str, upto: str) -> _Known:
    """What is known of some folders after one, at one moment."""
    images = _images.all(db, after=after, upto=upto)
    discards = _discards.all(db, after=after, upto=upto)
    # Beyond the end of a full page it is not known what the other one has.
    end = min((page[-1].folder for page in (images, discards) if len(page) == AT_ONCE), default=upto)
    return _Known(
        [image for image in images if image.folder <= end],
        [discard for discard in discards if discard.folder <= end],
        end,
    )


def _merged(stored: Iterable[StoredFolder], known: _Known) -> Iterator[Entry]:
    by_name = {folder.name: folder for folder in stored}
    images = {image.folder: image for image in known.images}
    discards = {discard.folder: discard for discard in known.discards}
    for name in sorted(by_name.keys() | images.keys() | discards.keys()):
        yield Entry(name, by_name.get(name), images.get(name), discards.get(name))
