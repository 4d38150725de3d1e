"""What `insta audit` compares of the store of images: it has what the rows of images name, and nothing unknown."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from chassis import clock
from chassis.store import Database, Store
from services.posts.media import inventory
from services.posts.media.blob_store import BlobStore
from suite.checks import Check, Page, record
from suite.images import mostly_unknown

BLOBS = "blobs of images"
FOLDERS = "folders of the store"
_SERVICE = "posts"
# Whoever stored it may have been slow to say so.
_UNKNOWN_MICROS = 10 * 60 * 1_000_000
_TOLD = 20


@dataclass
class _Compared:
    """What one pass over the store found.

    Attributes:
        incomplete: By the id of an image: what it lacks, in words.
        unknown: Folders.
    """

    images: int = 0
    folders: int = 0
    incomplete: dict[int, str] = field(default_factory=dict)
    unknown: list[str] = field(default_factory=list)


class ImageChecks:
    """The checks. Both look at what one pass over the store finds, and at a second one only if something differs.

    Args:
        store: The database of the posts service.
        place: Where the blobs are, in words.
    """

    def __init__(self, store: Store, blobs: BlobStore, place: str) -> None:
        self._store = store
        self._blobs = blobs
        self._place = place

    def checks(self) -> Iterator[Check]:
        """In the order in which they are to be made."""
        yield Check(
            _SERVICE,
            BLOBS,
            lambda above: Page(self._first.images, list(self._first.incomplete), None),
            lambda ids: sorted(self._second.incomplete.keys() & set(ids)),
            advice=self._how_to_complete,
        )
        yield Check(
            _SERVICE,
            FOLDERS,
            lambda above: Page(self._first.folders, self._first.unknown, None),
            lambda folders: sorted(set(self._second.unknown) & set(folders)),
            self._discard,
            self._why_not_discarded,
        )

    # What differs in both passes is no upload and no deletion under way. An image of the first one had all its blobs by
    # then, and has them until its row is gone, which is looked for after them. A folder that was being deleted in the
    # first is not listed in the second.

    @cached_property
    def _first(self) -> _Compared:
        return self._compare()

    @cached_property
    def _second(self) -> _Compared:
        return self._compare()

    def _compare(self) -> _Compared:
        compared = _Compared()
        settled = clock.now() - _UNKNOWN_MICROS
        for entry in inventory.entries(self._store, self._blobs):
            compared.images += entry.image is not None
            compared.folders += entry.stored is not None
            if entry.image is not None and entry.missing:
                compared.incomplete[entry.image.id] = _lack(entry.image, entry.missing)
            if entry.unknown and entry.stored is not None and entry.stored.change_time < settled:
                compared.unknown.append(entry.folder)
        return compared

    @property
    def _foreign(self) -> bool:
        return mostly_unknown(len(self._second.unknown), self._second.folders)

    def _discard(self, folders: Sequence[str]) -> None:
        if not self._foreign:
            self._store.write_now(_discard_unknown, folders)

    def _how_to_complete(self) -> str:
        lacks = list(self._second.incomplete.values())
        more = [f"  and {len(lacks) - _TOLD:,} more"] if len(lacks) > _TOLD else []
        first = (
            f"What is lost cannot be made anew. Put these folders back into {self._place} from a backup of the images,"
            " or have the posts deleted:"
        )
        return "\n".join([first, *lacks[:_TOLD], *more])

    def _why_not_discarded(self) -> str:
        if not self._foreign:
            return "With --repair they are deleted; insta media gc deletes them a day after they came."
        return (
            f"These are most of what is in {self._place}, which may be that of another suite: a repair lets them be."
            " See whether INSTA_DATA and INSTA_MEDIA_URL belong together; if so, insta media gc --force deletes them."
        )


def _lack(image: inventory.KnownImage, missing: set[str]) -> str:
    where = "" if image.post_id is None else f" in post {image.post_id}"
    blobs = "all its blobs" if missing == image.blobs else ", ".join(sorted(missing))
    return f"  {image.folder}: image {image.id}{where} by user {image.owner_id} lacks {blobs}"


def _discard_unknown(db: Database, folders: Sequence[str]) -> None:
    count = inventory.discard_unknown(db, folders)
    record("unknown folders left to deletion", _SERVICE, FOLDERS, count)
