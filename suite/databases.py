"""The databases of the services: files in the data folder, or on PostgreSQL servers."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import apsw
import click
import peewee

from chassis import events
from chassis.schema import MigrationFailed
from chassis.service import Service
from chassis.settings import DatabaseAddress, Settings, database_variable
from chassis.sqlite import SQLiteStore
from chassis.store import Store


def path_of(settings: Settings, service: Service) -> Path:
    """The file of a service's database."""
    return settings.data / f"{service.name}.db"


def require_files(settings: Settings, instead: str) -> None:
    """Refuse what only works on files.

    Args:
        instead: What does the same on a PostgreSQL server.
    """
    for name in settings.database_addresses:
        raise click.ClickException(
            f"{database_variable(name)} is set: the {name} database is on a PostgreSQL server, and this command is for"
            f" files. Use {instead}."
        )


def restore_to_finish(settings: Settings) -> Path:
    """The folder of databases that take the place of those there are. It exists while that is under way."""
    return settings.data / "restore.ready"


def wait_for_servers(settings: Settings, services: Iterable[Service]) -> None:
    """Wait for the servers of databases, where a signal ends the process meanwhile: an event loop would not hear of it.

    Raises:
        click.ClickException: as `open_store`.
    """
    for service in services:
        if service.name in settings.database_addresses:
            open_store(settings, service).close()


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
    address = settings.database_addresses.get(service.name)
    if address is not None:
        return _open_on_server(settings, service, address, on_commit)
    if restore_to_finish(settings).exists():
        text = f"a restore into {settings.data} was interrupted. Finish it: run the insta restore command again."
        raise click.ClickException(text)
    path = path_of(settings, service)
    try:
        return SQLiteStore(path, service.migrations, on_commit, on_log_size)
    except MigrationFailed as failure:
        raise click.ClickException(str(failure)) from None
    except (OSError, apsw.Error, peewee.PeeweeException) as failure:
        why = failure.strerror if isinstance(failure, OSError) else failure
        raise click.ClickException(f"cannot use {path}: {why}. Set INSTA_DATA to another folder.") from None


def require_whole(path: Path, name: Path) -> None:
    """See that a database that was closed is whole without the write-ahead log beside it: only its file is moved.

    Raises:
        click.ClickException: it is not; closing it did not say so.
    """
    if Path(f"{path}-wal").exists():
        raise click.ClickException(f"not all of {name} could be written. Is the disk full?")


def _open_on_server(
    settings: Settings, service: Service, address: DatabaseAddress, on_commit: Callable[[int], None]
) -> Store:
    assert service.migrations is not None
    variable = database_variable(service.name)
    try:
        # Only who uses PostgreSQL needs what it takes.
        from chassis.postgres import PostgresStore
        from chassis.postgres_database import CannotConnect
    except ImportError:
        text = f"{variable} needs a package that is not installed: pip install 'insta[postgresql]'."
        raise click.ClickException(text) from None
    try:
        connections = settings.database_connections
        return PostgresStore(address, service.migrations, on_commit, connections, on_arrival=events.begin_elsewhere)
    except CannotConnect as failure:
        text = f"cannot use {address}: {failure}. {failure.remedy.format(setting=variable)}."
        raise click.ClickException(text) from None
    except MigrationFailed as failure:
        raise click.ClickException(f"{failure} {variable} says where it is.") from None
    except peewee.PeeweeException as failure:
        why = " ".join(str(failure).split())
        raise click.ClickException(f"cannot use {address}: {why}. Set {variable} to another.") from None
