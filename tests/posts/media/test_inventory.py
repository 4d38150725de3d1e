"""The store of images beside the database: no folder is passed over, and none that is known is discarded."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from chassis.clock import now
from chassis.store import Database, Store
from services.posts import service
from services.posts.media import discards, inventory
from services.posts.media.blob_store import Blob, StoredFolder
from services.posts.media.file_blobs import FileBlobs
from services.posts.models import Media
from tests import databases

DAY = 24 * 3600 * 1_000_000


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    assert service.SERVICE.migrations is not None
    with closing(databases.open_store(tmp_path / "posts.db", service.SERVICE.migrations)) as opened:
        yield opened


@pytest.fixture
def blobs(tmp_path: Path) -> Iterator[FileBlobs]:
    with closing(FileBlobs(tmp_path / "media", "http://localhost")) as opened:
        yield opened


def folder_named(number: int) -> str:
    return f"{number:032x}"


def add_image(db: Database, folder: str) -> None:
    with db.bind_ctx([Media]):
        Media.insert(
            owner_id=1,
            folder=folder,
            content_type="image/png",
            width=4,
            height=3,
            blurhash="",
            alt_text="",
            variants=json.dumps([[4, 3, "image/webp", 1]]),
            create_time=1,
            position=0,
            expire_time=1,
        ).execute()


def file_in(root: Path, folder: str) -> None:
    """Store a blob without waiting for the disk."""
    (root / folder).mkdir()
    (root / folder / "4.webp").write_bytes(b"x")


@pytest.mark.parametrize(
    ("stored", "images", "held"), [(0.9, 0.8, 0.1), (0, 1, 0), (1, 0, 0), (0.1, 0.3, 1), (1, 1, 0)]
)
def test_every_folder_is_met_once_and_in_order(
    store: Store, blobs: FileBlobs, tmp_path: Path, stored: float, images: float, held: float
) -> None:
    """However many of them are on either side: both are read some at a time."""
    chance = random.Random(1)
    expected: dict[str, tuple[bool, bool, bool]] = {}

    def fill(db: Database) -> None:
        for number in range(1250):
            folder = folder_named(number)
            is_stored, is_image = chance.random() < stored, chance.random() < images
            is_held = not is_image and chance.random() < held
            if is_stored:
                file_in(tmp_path / "media", folder)
            if is_image:
                add_image(db, folder)
            if is_held:
                discards.hold(db, folder, 1, now() + DAY)
            if is_stored or is_image or is_held:
                expected[folder] = (is_stored, is_image, is_held)

    store.write_now(fill)

    met = [
        (entry.folder, (entry.stored is not None, entry.image is not None, entry.discard is not None))
        for entry in inventory.entries(store, blobs)
    ]

    assert met == list(expected.items())


def test_what_became_an_image_after_it_was_listed_is_known(store: Store, blobs: FileBlobs, tmp_path: Path) -> None:
    for number in range(3):
        asyncio.run(blobs.put(folder_named(number), [Blob("4.webp", "image/webp", b"x")]))
    listing = iter(list(blobs.folders()))

    class Listed(FileBlobs):
        """Between its listing and what follows an upload and a deletion are finished."""

        def folders(self) -> Iterator[StoredFolder]:
            yield from listing
            store.write_now(add_image, folder_named(0))
            store.write_now(discards.hold, folder_named(1), 1, now() + DAY)

    with closing(Listed(tmp_path / "media", "")) as late:
        unknown = [entry.folder for entry in inventory.entries(store, late) if entry.unknown]

    assert unknown == [folder_named(2)]


def test_only_what_is_unknown_is_discarded_and_what_is_held_stays_held(store: Store) -> None:
    image, held, unknown = map(folder_named, range(3))
    store.write_now(add_image, image)
    later = now() + DAY
    store.write_now(discards.hold, held, 7, later)

    assert store.write_now(inventory.discard_unknown, [image, held, unknown]) == 1

    assert store.write_now(discards.begin_due, now(), later, 10) == [unknown]
    assert store.write_now(discards.take_out, held)
    assert store.read_now(inventory.known_among, [image, held, unknown]) == [image, unknown]


def test_a_blob_that_is_missing_is_named(store: Store, blobs: FileBlobs, tmp_path: Path) -> None:
    whole, lost = map(folder_named, range(2))
    for folder in (whole, lost):
        store.write_now(add_image, folder)
    file_in(tmp_path / "media", whole)

    missing = {entry.folder: entry.missing for entry in inventory.entries(store, blobs)}

    assert missing == {whole: set(), lost: {"4.webp"}}
