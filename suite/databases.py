"""The databases of the services, in the data folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import apsw
import click
import peewee

from chassis.schema import MigrationFailed
from chassis.service import Service
from chassis.settings import Settings
from chassis.store import Store


def path_of(settings: Settings, service: Service) -> Path:
    """The file of a service's database."""
    return settings.data / f"{service.name}.db"


def restore_to_finish(settings: Settings) -> Path:
    """The folder of databases that take the place of those there are. It exists while that is under way."""
    return settings.data / "restore.ready"


def open_store(
    settings: Settings,
    service: Service,
    on_commit: Callable[[int], None] = lambda writes: None,
    on_log_size: Callable[[int], None] = lambda size: None,
) -> Store:
    """The database of a service, made or brought up to date if need be.

    Raises:
        click.ClickException: it cannot be used; says what to change.
    """
    if service.migrations is None:
        raise LookupError(f"the {service.name} service has no database")
    if restore_to_finish(settings).exists():
        text = f"a restore into {settings.data} was interrupted. Finish it: run the insta restore command again."
        raise click.ClickException(text)
    path = path_of(settings, service)
    try:
        return Store(path, service.migrations, on_commit, on_log_size)
    except MigrationFailed as failure:
        raise click.ClickException(str(failure)) from None
    except (OSError, apsw.Error, peewee.PeeweeException) as failure:
        why = failure.strerror if isinstance(failure, OSError) else failure
        raise click.ClickException(f"cannot use {path}: {why}. Set INSTA_DATA to another folder.") from None
