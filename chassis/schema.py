"""The schema of a database: numbered migrations, each applied once, by the first process whose code brings it."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import peewee
from playhouse import migrations

from chassis import logs

log = logs.get(__name__)


class MigrationFailed(Exception):
    """A migration could not be applied, and left nothing behind. Says which one, of which database, and why."""


def bring_up_to_date(db: peewee.Database, name: str, folder: Path) -> None:
    """Apply what a database did not go through yet: each migration in a transaction, with its row of the history.

    Runs while no other process can do the same: of several that start with a new migration one applies it, and the
    others find it applied. Whoever serves the database meanwhile reads on, and writes when it is done.

    A database may have gone through migrations that are not here, those of a newer version. That is a warning in the
    log and no reason to stop: migrations only add, so this version can work on it, and does so already when it was
    there before the newer one. While one takes the place of the other, a process that dies has to come back.

    Args:
        name: Of the database, for what is said of it.
        folder: The migrations, as `playhouse.migrations` runs them.

    Raises:
        MigrationFailed: one of them did. Those before it are applied.
    """
    runner: Any = migrations.Runner(db, str(folder))
    status = runner.status()
    unknown = [migration.name for migration in status if migration.path is None]
    if unknown:
        log.warning("database is newer than this version of insta", database=name, migrations=unknown)
    is_new = not any(migration.applied for migration in status)
    for migration in status:
        if migration.applied:
            continue
        began = time.perf_counter()
        try:
            # No other is left to apply before it.
            runner.up(migration.name)
        except Exception as failure:
            why = f"{type(failure).__name__}: {failure}"
            text = (
                f"migration {migration.name} of {name} failed ({why}). It changed nothing; the next start tries again."
            )
            raise MigrationFailed(text) from failure
        if not is_new:
            # Nobody could write for so long.
            seconds = round(time.perf_counter() - began, 3)
            log.info("migration applied", database=name, migration=migration.name, seconds=seconds)
