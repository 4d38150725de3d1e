"""`insta backup`: copies of the databases and of images in a folder, made while the suite runs."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import apsw
import click
import peewee
from rich import box
from rich.console import Console
from rich.table import Table

from chassis import audit, clock, events
from chassis.settings import Settings
from chassis.sqlite import SQLiteDatabase
from chassis.store import Database
from suite import image_copies
from suite.audit import ROWS
from suite.composition import SERVICES
from suite.databases import path_of, require_files
from suite.images import place_of

# What is in a copy refers to nothing that is newer than the copies made after it.
ORDER = ("social", "posts", "users")
FORMAT = 1
MANIFEST = "manifest.json"
_PAGES_AT_ONCE = 256


@dataclass(frozen=True)
class Copy:
    """What the manifest says of one database.

    Attributes:
        schema: The last migration that it went through.
        epoch, head_offset: Of its event log, if it has one.
    """

    name: str
    size: int
    sha256: str
    schema: str
    epoch: str
    head_offset: int

    @property
    def file(self) -> str:
        return f"{self.name}.db"


@click.command(short_help="Copy the databases and images while the suite runs.")
@click.argument("directory", metavar="DIR", type=click.Path(path_type=Path))
@click.pass_obj
def backup(settings: Settings, directory: Path) -> None:
    """Copy the databases in INSTA_DATA to the new folder DIR, whether the suite runs on them or not.

    All that was answered before the command began is in the copy. Keep it as safe as the databases: that of users holds
    the keys that sign access tokens. Certificates (INSTA_DATA/tls) are not copied.

    Images are copied if INSTA_MEDIA_URL is a folder: as hard links, which take no space, if DIR is in the same file
    system. A bucket is not copied: let S3 keep what is deleted in it for as long as you keep backups.
    """
    require_files(settings, "pg_dump")
    partial = directory.with_name(f"{directory.name}.partial")
    for there in (directory, partial):
        if there.exists() or there.is_symlink():
            raise click.ClickException(f"{there} exists already. Choose another folder, or move it away.")
    sources = {name: path for name in ORDER if (path := path_of(settings, SERVICES[name])).exists()}
    if not sources:
        raise click.ClickException(f"there are no databases in {settings.data}. Set INSTA_DATA to their folder.")
    root = settings.media_folder if "posts" in sources else None
    with copying_lock(settings):
        try:
            partial.mkdir(mode=0o700)
            copies, images, lost = _copy_all(sources, root, partial)
            _write_manifest(partial / MANIFEST, copies, images)
            sync(partial)
            partial.rename(directory)
            sync(directory.parent)
        except (OSError, apsw.Error, peewee.PeeweeException) as failure:
            why = failure.strerror if isinstance(failure, OSError) else failure
            raise click.ClickException(f"nothing was copied to {directory}: {why}") from None
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    audit.record(
        "backup made",
        folder=str(directory),
        databases=list(sources),
        images=images.folders if images else None,
        operator_uid=os.getuid(),
    )
    print_copies(copies, images)
    click.echo(f"Copied to {directory}. It holds the keys that sign access tokens.")
    if images is None and "posts" in sources:
        click.echo(f"The images in {place_of(settings)} are not copied.")
    if lost:
        click.echo(f"Of {lost:,} images the store has lost blobs, before this: insta audit names them.", err=True)


def _copy_all(
    sources: Mapping[str, Path], images: Path | None, folder: Path
) -> tuple[list[Copy], image_copies.Images | None, int]:
    """Copy databases, and images if they are in a folder. Also tells how many images have lost blobs."""
    if images is None:
        return [_copy(name, path, folder) for name, path in sources.items()], None, 0
    copied = folder / image_copies.IMAGES
    lost = 0

    def settle(source: Path, copy: Path) -> None:
        nonlocal lost
        image_copies.take(images, copied)
        lost = image_copies.settle(source, copy, copied)

    # Most of them now: the fewer come and go between the copy of the database and the images after it.
    image_copies.take(images, copied)
    copies = [_copy(name, path, folder, settle if name == "posts" else None) for name, path in sources.items()]
    os.sync()
    return copies, image_copies.count(copied), lost


def _copy(name: str, source: Path, folder: Path, settle: Callable[[Path, Path], None] | None = None) -> Copy:
    """Copy a database as it is at one moment.

    Args:
        settle: Called with the source and the copy, which it may change.
    """
    target = folder / f"{name}.db"
    os.close(os.open(target, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    db = SQLiteDatabase(source)
    # In one transaction: each commit of another process would begin the copy anew. It holds no writer, and the log of
    # the database grows by what is written meanwhile.
    with closing(db), db.atomic():
        schema = schema_of(db)
        state = events.state(db) if ROWS[name].appends else events.State("", 0, 0)
        with (
            closing(apsw.Connection(str(target), flags=apsw.SQLITE_OPEN_READWRITE)) as copy,
            copy.backup("main", db.connection(), "main") as running,
        ):
            while not running.done:
                running.step(_PAGES_AT_ONCE)
    if settle is not None:
        settle(source, target)
    require_sound(target)
    sync(target)
    size, sha256 = digest(target)
    return Copy(name, size, sha256, max(schema, default=""), state.epoch, state.head_offset)


def _write_manifest(path: Path, copies: Iterable[Copy], images: image_copies.Images | None) -> None:
    manifest = {
        "format": FORMAT,
        "time": clock.timestamp(clock.now()).ToJsonString(),
        "databases": list(map(asdict, copies)),
        "images": images._asdict() if images else None,
    }
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "w") as file:
        json.dump(manifest, file, indent=2)
        file.write("\n")
    sync(path)


def schema_of(db: Database) -> set[str]:
    """The names of the migrations that a database went through."""
    return {row[0] for row in db.execute_sql("SELECT name FROM schema_migration").fetchall()}


def require_sound(path: Path) -> None:
    """Let SQLite look through a database that nobody uses.

    Raises:
        apsw.CorruptError: it is damaged.
    """
    uri = f"{path.absolute().as_uri()}?immutable=1"
    with closing(apsw.Connection(uri, flags=apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI)) as connection:
        said: Any = connection.execute("PRAGMA integrity_check(1)").get
        if said != "ok":
            raise apsw.CorruptError(f"{path.name} is damaged: {said}")


def digest(path: Path) -> tuple[int, str]:
    """The size of a file, and its SHA-256 in hexadecimal digits."""
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        return file.tell(), sha256


def sync(path: Path) -> None:
    """Have a file, or the names in a folder, outlive a power failure."""
    opened = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


@contextmanager
def copying_lock(settings: Settings) -> Iterator[None]:
    """Keep backups and restores of a data folder from each other."""
    lock = os.open(settings.data / "backup.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise click.ClickException(f"a backup or restore of {settings.data} is under way. Try again later.") from None
    else:
        yield
    finally:
        os.close(lock)


def print_copies(copies: Iterable[Copy], images: image_copies.Images | None) -> None:
    """Show what a backup consists of as a table."""
    table = Table(box=box.SIMPLE)
    table.add_column("copy of")
    table.add_column("bytes", justify="right")
    table.add_column("schema", overflow="fold")
    table.add_column("events", justify="right")
    table.add_column("SHA-256")
    for copy in copies:
        head = f"{copy.head_offset:,}" if copy.epoch else ""
        table.add_row(copy.name, f"{copy.size:,}", copy.schema, head, f"{copy.sha256[:12]}...")
    if images is not None:
        table.add_row(f"{images.folders:,} images", f"{images.size:,}", "", "", "")
    Console().print(table)
