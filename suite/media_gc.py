"""`insta media gc`: deletes the images that nothing refers to."""

from __future__ import annotations

import datetime
import os
from collections import Counter
from collections.abc import Sequence
from contextlib import closing, nullcontext
from typing import NamedTuple

import click
from rich import box
from rich.console import Console
from rich.table import Table

from chassis import audit, clock, errors
from chassis.consistency import AT_ONCE
from chassis.settings import Settings
from chassis.store import Store
from services.posts.media import collector, inventory, records
from services.posts.media.blob_store import BlobStore
from suite import interruptible
from suite.backup import copying_lock
from suite.composition import SERVICES
from suite.databases import open_store, path_of
from suite.images import mostly_unknown, place_of, store_of_images

UNSHOWN = "not shown"
DISCARDED = "discarded"
UNKNOWN = "unknown"
# What the database does not know is given so long, for whoever made it to say so.
_UNKNOWN_MICROS = 24 * 3600 * 1_000_000
_SHOWN = 1000


class Doomed(NamedTuple):
    """A folder that is to be deleted.

    Attributes:
        since: When that for which it is began, in microseconds since 1970.
    """

    folder: str
    size: int
    since: int
    why: str


class _Found(NamedTuple):
    """What is to be deleted, and how many folders the store holds."""

    doomed: Sequence[Doomed]
    stored: int


@click.command(name="gc", short_help="Delete the images that nothing refers to.")
@click.option("--dry-run", is_flag=True, help="Only show what would be deleted.")
@click.option("--force", is_flag=True, help="Also if the database does not know most of the images.")
@click.pass_obj
def gc(settings: Settings, dry_run: bool, force: bool) -> None:
    """Delete from the store of images (INSTA_MEDIA_URL) what nothing refers to, now.

    These are images that neither a post nor an avatar showed for a day, those that were deleted, and uploads that were
    not finished ("discarded"): a running suite deletes them by itself. And they are folders older than a day that the
    posts database does not know, as after a restore. What is referred to stays, whatever a suite does
    meanwhile.
    """
    on_server = "posts" in settings.database_addresses
    if not on_server and not path_of(settings, SERVICES["posts"]).exists():
        text = (
            f"there is no posts database in {settings.data}, to tell what is referred to. Set INSTA_DATA to its folder."
        )
        raise click.ClickException(text)
    # What a restore puts in place is unknown until it ends. There is none of a database on a server.
    with (
        nullcontext() if dry_run or on_server else copying_lock(settings),
        closing(open_store(settings, SERVICES["posts"])) as store,
        store_of_images(settings) as blobs,
    ):
        now = clock.now()
        found = _find(store, blobs, now)
        _print(found.doomed)
        if not found.doomed:
            return
        unknown = [doomed.folder for doomed in found.doomed if doomed.why == UNKNOWN]
        if mostly_unknown(len(unknown), found.stored) and not force:
            raise click.ClickException(
                f"the database does not know {len(unknown):,} of the {found.stored:,} folders in {place_of(settings)}:"
                " it may be that of another suite. See whether INSTA_DATA and INSTA_MEDIA_URL belong together; if so,"
                " --force deletes them."
            )
        if not dry_run:
            _delete(store, blobs, found.doomed, now)


def _find(store: Store, blobs: BlobStore, now: int) -> _Found:
    doomed: list[Doomed] = []
    stored = 0
    for entry in inventory.entries(store, blobs):
        stored += entry.stored is not None
        if (one := _doomed(entry, now)) is not None:
            doomed.append(one)
    return _Found(doomed, stored)


def _doomed(entry: inventory.Entry, now: int) -> Doomed | None:
    size = entry.stored.size if entry.stored else 0
    if entry.image is not None:
        expire_time = entry.image.expire_time
        if expire_time is None or expire_time > now:
            return None
        return Doomed(entry.folder, size, expire_time - records.KEPT_MICROS, UNSHOWN)
    if entry.discard is not None:
        return Doomed(entry.folder, size, entry.discard.due_time, DISCARDED) if entry.discard.due_time <= now else None
    if entry.stored is not None and entry.stored.change_time < now - _UNKNOWN_MICROS:
        return Doomed(entry.folder, size, entry.stored.change_time, UNKNOWN)
    return None


def _delete(store: Store, blobs: BlobStore, doomed: Sequence[Doomed], now: int) -> None:
    """Delete what is still to be deleted, and tell what was."""
    while store.write_now(records.delete_expired, now, AT_ONCE):
        pass
    unknown = [one.folder for one in doomed if one.why == UNKNOWN]
    for start in range(0, len(unknown), AT_ONCE):
        store.write_now(inventory.discard_unknown, unknown[start : start + AT_ONCE])
    failure = ""
    try:
        interruptible.run(_collect(store, blobs))
    except errors.Error as error:
        failure = error.text
    left = set(store.read_now(inventory.known_among, [one.folder for one in doomed]))
    deleted = [one for one in doomed if one.folder not in left]
    size = sum(one.size for one in deleted)
    whys = Counter(one.why for one in deleted)
    audit.record(
        "images collected",
        unshown=whys[UNSHOWN],
        discarded=whys[DISCARDED],
        unknown=whys[UNKNOWN],
        bytes=size,
        operator_uid=os.getuid(),
    )
    click.echo(f"Deleted {_folders(len(deleted))}, {size:,} bytes.")
    if failure:
        raise click.ClickException(f"{failure}.")
    if left:
        click.echo(f"Not deleted here: {_folders(len(left))}. A suite is doing it, or something shows them by now.")


async def _collect(store: Store, blobs: BlobStore) -> None:
    while await collector.collect(store, blobs):
        pass


def _print(doomed: Sequence[Doomed]) -> None:
    if not doomed:
        click.echo("There is nothing to delete.")
        return
    table = Table(box=box.SIMPLE)
    table.add_column("folder", no_wrap=True)
    table.add_column("bytes", justify="right", no_wrap=True)
    table.add_column("since (UTC)", no_wrap=True)
    table.add_column("why", overflow="fold")
    for one in doomed[:_SHOWN]:
        since = datetime.datetime.fromtimestamp(one.since / 1_000_000, datetime.UTC)
        table.add_row(one.folder, f"{one.size:,}", f"{since:%Y-%m-%d %H:%M}", one.why)
    Console().print(table)
    if len(doomed) > _SHOWN:
        click.echo(f"and {len(doomed) - _SHOWN:,} more")
    size = sum(one.size for one in doomed)
    whys = ", ".join(f"{count:,} {why}" for why, count in Counter(one.why for one in doomed).items())
    click.echo(f"To be deleted: {_folders(len(doomed))}, {size:,} bytes ({whys}).")


def _folders(count: int) -> str:
    return "1 folder" if count == 1 else f"{count:,} folders"
