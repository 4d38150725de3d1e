"""`insta restore`: puts a backup in the place of the databases, and images back that are missing."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from contextlib import ExitStack, closing
from pathlib import Path

import apsw
import click
import peewee

from chassis import audit, clock, events
from chassis.models import skip_ids
from chassis.settings import Settings
from chassis.sqlite import SQLiteDatabase
from services.users import keys, sessions
from suite import image_copies
from suite.audit import ROWS
from suite.backup import (
    FORMAT,
    MANIFEST,
    ORDER,
    Copy,
    copying_lock,
    digest,
    print_copies,
    require_sound,
    schema_of,
    sync,
)
from suite.composition import SERVICES
from suite.databases import open_store, path_of, require_files, require_whole, restore_to_finish
from suite.images import place_of
from suite.serving import data_lock

# In the folder of new databases: where those of before are kept.
_KEPT = "kept"


@click.command(short_help="Put a backup in the place of the databases.")
@click.argument("directory", metavar="DIR", type=click.Path(path_type=Path))
@click.option("--replace", is_flag=True, help="Replace the databases that are there. They are kept, in another folder.")
@click.pass_obj
def restore(settings: Settings, directory: Path, replace: bool) -> None:
    """Put the backup in DIR in the place of the databases in INSTA_DATA. The suite must not run on them.

    Everything is as it was when the backup was made: what was deleted afterwards is there again. But all sessions are
    ended, and a new key signs access tokens, so that none that was revoked since is accepted again.

    Images of the backup that are missing in INSTA_MEDIA_URL, which has to be a folder, are put back there first. None
    is removed: insta media gc deletes those that the databases do not know then.
    """
    require_files(settings, "pg_restore")
    try:
        _restore(settings, directory, replace)
    except (OSError, apsw.Error, peewee.PeeweeException) as failure:
        why = failure.strerror if isinstance(failure, OSError) else failure
        raise click.ClickException(f"{directory} was not restored: {why}") from None


def _restore(settings: Settings, directory: Path, replace: bool) -> None:
    data = settings.data
    with ExitStack() as held:
        for name in ORDER:
            held.enter_context(data_lock(settings, SERVICES[name]))
        held.enter_context(copying_lock(settings))
        if restore_to_finish(settings).exists():
            kept = _put_in_place(settings)
            click.echo(f"Finished the restore that was interrupted. What was there before is in {kept}.")
            return
        copies, images = _read_manifest(directory)
        if images is not None:
            _require_whole(directory, images)
        there = [copy.file for copy in copies if path_of(settings, SERVICES[copy.name]).exists()]
        if there and not replace:
            raise click.ClickException(f"there is {there[0]} in {data} already. With --replace it is kept elsewhere.")
        staging = data / "restore.partial"
        # Left by one that was interrupted before it changed anything.
        shutil.rmtree(staging, ignore_errors=True)
        staging.mkdir(mode=0o700)
        try:
            for copy in copies:
                _stage(copy, directory, staging)
            for copy in copies:
                _begin_anew(settings, copy.name, staging)
            kept_name = f"replaced-{clock.now()}" if there else ""
            (staging / _KEPT).write_text(kept_name)
            for path in (*staging.iterdir(), staging):
                sync(path)
            put_back = _put_images_back(settings, directory, images)
            # From here on it will be finished, by this process or by the next.
            staging.rename(restore_to_finish(settings))
        finally:
            shutil.rmtree(staging, ignore_errors=True)
        kept = _put_in_place(settings)
    audit.record(
        "backup restored", folder=str(directory), kept=str(kept or ""), images=put_back, operator_uid=os.getuid()
    )
    print_copies(copies, images)
    _tell_of_images(settings, directory, images, put_back)
    click.echo("All sessions are ended, and no access token from before is accepted. Restart what runs elsewhere, too.")
    if kept:
        click.echo(
            f"What was there before is in {kept}; it holds keys and sessions, so delete it once it is not needed."
        )


def _read_manifest(directory: Path) -> tuple[list[Copy], image_copies.Images | None]:
    """What a backup consists of.

    Raises:
        click.ClickException: it is none, or one that this version does not know.
    """
    try:
        manifest = json.loads((directory / MANIFEST).read_text())
        version = manifest["format"]
        if version != FORMAT:
            raise click.ClickException(f"{directory} has the format {version}; this version of insta knows {FORMAT}.")
        copies = [Copy(**entry) for entry in manifest["databases"]]
        # A backup of an earlier version says nothing of images.
        said = manifest.get("images")
        images = image_copies.Images(**said) if said else None
    except FileNotFoundError:
        raise click.ClickException(f"{directory} is no backup: it has no {MANIFEST}.") from None
    except (ValueError, KeyError, TypeError):
        raise click.ClickException(f"{directory} is no backup: its {MANIFEST} cannot be read.") from None
    names = [copy.name for copy in copies]
    if not names or not set(names) <= set(ORDER) or len(set(names)) != len(names):
        raise click.ClickException(
            f"{directory} is no backup: its {MANIFEST} names other databases than {', '.join(ORDER)}."
        )
    return copies, images


def _require_whole(directory: Path, images: image_copies.Images) -> None:
    """Look whether a backup has all its images.

    Raises:
        click.ClickException: it has not.
    """
    there = image_copies.count(directory / image_copies.IMAGES)
    if there != images:
        raise click.ClickException(
            f"{directory} is no whole backup: it has {there.folders:,} images of {there.size:,} bytes, and {MANIFEST}"
            f" says {images.folders:,} of {images.size:,}."
        )


def _put_images_back(settings: Settings, directory: Path, images: image_copies.Images | None) -> int:
    """Put back the images that the store lacks. Returns how many."""
    if images is None or settings.media_folder is None:
        return 0
    count = image_copies.put_back(directory / image_copies.IMAGES, settings.media_folder)
    os.sync()
    return count


def _tell_of_images(settings: Settings, directory: Path, images: image_copies.Images | None, put_back: int) -> None:
    place = place_of(settings)
    if images is None:
        click.echo(f"The backup has no images: those in {place} are as they were.")
    elif settings.media_folder is None:
        click.echo(f"The images in {directory / image_copies.IMAGES} were not put back: {place} is no folder.")
    elif put_back:
        click.echo(f"Of these images {put_back:,} were missing in {place}, and are there again.")
    else:
        click.echo(f"None of these images was missing in {place}.")


def _stage(copy: Copy, directory: Path, staging: Path) -> None:
    """Take a database from a backup, if it is what the manifest says.

    Raises:
        click.ClickException: it is not, or it is newer than this version of the suite.
    """
    staged = staging / copy.file
    try:
        shutil.copyfile(directory / copy.file, staged)
    except FileNotFoundError:
        raise click.ClickException(f"{directory} is no whole backup: {copy.file} is missing.") from None
    staged.chmod(0o600)
    if digest(staged) != (copy.size, copy.sha256):
        raise click.ClickException(f"{directory / copy.file} is damaged: it is not what {MANIFEST} says.")
    require_sound(staged)
    with closing(SQLiteDatabase(staged)) as db:
        unknown = schema_of(db) - {path.stem for path in _migrations(copy.name).glob("*.py")}
    if unknown:
        raise click.ClickException(
            f"{directory / copy.file} was made by a newer version of insta ({min(unknown)}). Restore it with that one."
        )


def _begin_anew(settings: Settings, name: str, staging: Path) -> None:
    """Make a copy one that others can tell from what they knew of the database that it was made of."""
    store = open_store(dataclasses.replace(settings, data=staging), SERVICES[name])
    try:
        store.write_now(skip_ids)
        if ROWS[name].appends:
            store.write_now(events.renew)
        if name == "users":
            store.write_now(sessions.end_everybodys)
            store.write_now(keys.replace)
    finally:
        store.close()
    require_whole(staging / f"{name}.db", path_of(settings, SERVICES[name]))
    for path in staging.glob(f"{name}.db.*"):
        # Locks, of no use once the database is elsewhere.
        path.unlink()


def _put_in_place(settings: Settings) -> Path | None:
    """Exchange the databases for the new ones, or go on with that. Returns where those of before are, if any."""
    ready = restore_to_finish(settings)
    kept_name = (ready / _KEPT).read_text()
    kept = settings.data / kept_name if kept_name else None
    if kept:
        kept.mkdir(mode=0o700, exist_ok=True)
    for new in sorted(ready.glob("*.db")):
        if kept:
            for suffix in ("-wal", "-shm", ""):
                old = settings.data / f"{new.name}{suffix}"
                if old.exists():
                    old.rename(kept / old.name)
        new.rename(settings.data / new.name)
    for folder in (kept, settings.data):
        if folder:
            sync(folder)
    shutil.rmtree(ready)
    sync(settings.data)
    return kept


def _migrations(name: str) -> Path:
    folder = SERVICES[name].migrations
    assert folder is not None
    return folder
