"""`insta migrate`: brings the databases of the services up to date before a version that needs it is started."""

from __future__ import annotations

import datetime
from contextlib import closing
from pathlib import Path
from typing import Any

import click
import peewee
from playhouse import migrations

from chassis.settings import Settings
from suite.composition import SERVICES
from suite.databases import open_store


@click.command(short_help="Bring the databases up to date.")
@click.pass_obj
def migrate(settings: Settings) -> None:
    """Apply the migrations that the databases of the services did not go through yet, and make those that are missing.

    A start does the same. This is for what has to end before many processes start: the suite may be running meanwhile,
    also an older version of it.
    """
    for service in SERVICES.values():
        if service.migrations is None:
            continue
        begun = datetime.datetime.now()
        with closing(open_store(settings, service)) as store:
            applied = store.read_now(_applied_since, service.migrations, begun)
        click.echo(f"{service.name:8} {', '.join(applied) or 'up to date'}")


def _applied_since(db: peewee.Database, folder: Path, begun: datetime.datetime) -> list[str]:
    """The names of migrations, by this process or another."""
    runner: Any = migrations.Runner(db, str(folder))
    return [migration.name for migration in runner.status() if migration.applied and migration.applied >= begun]
