"""Copies of the images in a folder, for backups.

They are hard links where that is possible: blobs come and go, and never change.
"""

from __future__ import annotations

import errno
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

from chassis.sqlite import SQLiteDatabase
from services.posts.media import inventory
from services.posts.media.blob_store import is_folder, is_name
from services.posts.models import Media

# In the folder of a backup.
IMAGES = "images"
# Of another file system, of one without hard links, or of a file that has too many of them.
_NO_LINK = (errno.EXDEV, errno.EPERM, errno.EMLINK, errno.ENOTSUP, errno.EACCES)


class Images(NamedTuple):
    """How many images there are, each a folder, and how many bytes their blobs have."""

    folders: int
    size: int


def count(root: Path) -> Images:
    """What is in a folder of images."""
    sizes = [sum(path.stat().st_size for path in _blobs(folder)) for folder in _folders(root)]
    return Images(len(sizes), sum(sizes))


def take(root: Path, target: Path) -> None:
    """Copy the images of a store that are not in `target` yet. Those that are deleted meanwhile may be there or not."""
    target.mkdir(mode=0o700, exist_ok=True)
    for folder in _folders(root):
        copy = target / folder.name
        if copy.exists():
            continue
        copy.mkdir(mode=0o700)
        try:
            for name in os.listdir(folder):
                if is_name(name):
                    _copy(folder / name, copy / name)
        except FileNotFoundError:
            # A folder of blobs goes as a whole.
            shutil.rmtree(copy)


def settle(source: Path, copy: Path, target: Path) -> int:
    """Have every image of a copied database be among the copied images. Returns how many are not.

    What was copied before the database and once more after it lacks images that came and went in between. The copy
    forgets them: that is how its source goes on. What its source still refers to is lost in the store, too.

    Args:
        source, copy: The files of the databases. Of the copy nobody else knows yet.
    """
    lost = 0
    with closing(SQLiteDatabase(source)) as live, closing(SQLiteDatabase(copy)) as copied:
        if not copied.table_exists(Media._meta.table_name):
            # It is of a version that had no images.
            return 0
        for image in list(inventory.images(copied)):
            if image.blobs <= {path.name for path in _blobs(target / image.folder)}:
                continue
            if inventory.is_image(live, image.folder):
                lost += 1
            else:
                inventory.forget_image(copied, image.folder)
    return lost


def put_back(source: Path, root: Path) -> int:
    """Copy to a store the blobs that it lacks. What it has stays. Returns of how many images it lacked some."""
    root.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    root.mkdir(mode=0o700, exist_ok=True)
    return sum(_put_back(folder, root / folder.name) for folder in _folders(source))


def _put_back(folder: Path, target: Path) -> bool:
    there = {path.name for path in _blobs(target)}
    missing = [blob for blob in _blobs(folder) if blob.name not in there]
    if not missing:
        return False
    # A store takes it for one that is being written, and removes it in the end if this process dies.
    new = target.with_name(f".new-{secrets.token_hex(16)}")
    new.mkdir(mode=0o700)
    try:
        for blob in missing:
            _copy(blob, new / blob.name)
        if there:
            for blob in missing:
                (new / blob.name).rename(target / blob.name)
        else:
            new.rename(target)
    finally:
        shutil.rmtree(new, ignore_errors=True)
    return True


def _folders(root: Path) -> Iterator[Path]:
    names = sorted(filter(is_folder, os.listdir(root))) if root.is_dir() else ()
    return (root / name for name in names)


def _blobs(folder: Path) -> list[Path]:
    """The blobs in a folder, if it is there."""
    return [folder / name for name in os.listdir(folder) if is_name(name)] if folder.is_dir() else []


def _copy(blob: Path, target: Path) -> None:
    try:
        os.link(blob, target)
    except OSError as failure:
        if failure.errno not in _NO_LINK:
            raise
        # With its time, by which it is seen to be old.
        shutil.copy2(blob, target)
