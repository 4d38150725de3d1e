"""`insta move`: moves the databases of the services from files to PostgreSQL servers, or back."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import apsw
import click
import peewee
from rich import box
from rich.console import Console
from rich.table import Table

from chassis import audit
from chassis.schema import MigrationFailed
from chassis.settings import DatabaseAddress, SettingError, Settings, database_variable, from_environment
from suite.composition import SERVICES
from suite.databases import path_of, restore_to_finish
from suite.images import place_of
from suite.serving import data_lock

if TYPE_CHECKING:
    from suite.moving import Move
    from suite.table_copies import Content

# Others refer to users and posts, and to nothing that is moved later.
_NAMES = ("users", "posts", "social")
_FILES, _SERVERS = "sqlite", "postgresql"


@click.command(short_help="Move the databases from files to a PostgreSQL server, or back.")
@click.argument("services", metavar="[users|posts|social]...", nargs=-1, type=click.Choice(_NAMES))
@click.option("--from", "source", metavar="PLACE", default=_FILES, show_default=True, help="Where the data are.")
@click.option("--to", "target", metavar="PLACE", default=_SERVERS, show_default=True, help="Where they are to be.")
@click.pass_obj
def move(settings: Settings, services: tuple[str, ...], source: str, target: str) -> None:
    """Move the databases of these services, or of all whose INSTA_..._DATABASE_URL is set, from files to a PostgreSQL
    server, or back. The suite must not run on them.

    \b
    PLACE is one of
      sqlite             the files in INSTA_DATA
      sqlite:FOLDER      the files in another folder
      postgresql         where INSTA_USERS_DATABASE_URL and the like say
      postgresql://...   a database, of one service. What stands here can be
                         seen by everybody on this machine (ps): leave the
                         password to the setting or to ~/.pgpass

    The new database has to be empty. Its rows are counted and compared by checksums with those of the old one, which
    stays as it is. Whatever interrupts the command, nothing is half moved: run it again. People stay logged in.
    Images are not moved.
    """
    try:
        # Only who uses PostgreSQL needs what it takes.
        from suite import moving
    except ImportError:
        text = "insta move needs a package that is not installed: pip install 'insta[postgresql]'."
        raise click.ClickException(text) from None
    to_server = _is_server(target)
    if _is_server(source) == to_server:
        raise click.ClickException(f"one of --from and --to must be {_FILES}, and the other {_SERVERS}.")
    folder = _folder(settings, source if to_server else target)
    files = dataclasses.replace(
        settings, data=folder, users_database_url=None, posts_database_url=None, social_database_url=None
    )
    if restore_to_finish(files).exists():
        raise click.ClickException(f"a restore into {folder} was interrupted. Finish it first: insta restore")
    addresses = _addresses(settings, target if to_server else source, services)
    moves = [
        moving.Move(SERVICES[name], path_of(files, SERVICES[name]), addresses[name], to_server)
        for name in _NAMES
        if name in addresses
    ]
    for one in moves:
        if to_server and not one.file.is_file():
            raise click.ClickException(f"there is no {one.file.name} in {folder}. Say where it is with --from.")
    with ExitStack() as held:
        for one in moves:
            held.enter_context(data_lock(files, one.service))
        for one in moves:
            _move(one)
    _tell_what_is_next(settings, moves, folder)


def _move(move: Move) -> None:
    from psycopg import Error

    from chassis import postgres_database

    name, console = move.service.name, Console()
    try:
        contents = move.run(console)
    except postgres_database.CannotConnect as failure:
        text = f"cannot use {move.address}: {failure}. {failure.remedy.format(setting='its address')}."
        raise click.ClickException(text) from None
    except MigrationFailed as failure:
        raise click.ClickException(str(failure)) from None
    except (OSError, apsw.Error, peewee.PeeweeException, Error) as failure:
        why = failure.strerror if isinstance(failure, OSError) else postgres_database.told(failure)
        raise click.ClickException(f"the {name} database was not moved to {move.target}: {why}") from None
    rows = sum(content.rows for content in contents.values())
    audit.record(
        "database moved", service=name, source=move.source, target=move.target, rows=rows, operator_uid=os.getuid()
    )
    click.echo(f"{name}: from {move.source} to {move.target}")
    _print(console, contents)


def _is_server(place: str) -> bool:
    scheme = place.partition(":")[0]
    if scheme not in (_FILES, _SERVERS, "postgres"):
        # What is no address may hold a password anywhere.
        raise click.ClickException(
            f"--from and --to must be {_FILES}, {_FILES}:FOLDER, {_SERVERS} or {_SERVERS}://USER@HOST:PORT/DATABASE."
        )
    return scheme != _FILES


def _folder(settings: Settings, place: str) -> Path:
    """The folder of the files.

    Raises:
        click.ClickException: there is none.
    """
    name = place.removeprefix(_FILES).removeprefix(":")
    folder = Path(name) if name else settings.data
    if folder.exists() and not folder.is_dir():
        raise click.ClickException(f"{folder} is no folder. Name that of the databases: {_FILES}:{folder.parent}")
    return folder


def _addresses(settings: Settings, place: str, services: Iterable[str]) -> Mapping[str, DatabaseAddress]:
    """The databases on servers, by the names of the services that are moved."""
    wanted = set(services)
    if place != _SERVERS:
        if len(wanted) != 1:
            raise click.ClickException(
                f"{_SERVERS}://... is the database of one service. Name it, users for instance, or set"
                f" {database_variable('users')} and the like."
            )
        (name,) = wanted
        try:
            return from_environment({database_variable(name): place}).database_addresses
        except SettingError as wrong:
            # Not as it was given: it may hold a password anywhere.
            raise click.ClickException(f"{_SERVERS}://... {str(wrong).partition(': ')[2]}") from None
    known = settings.database_addresses
    missing = wanted - known.keys()
    if missing or not known:
        variable = database_variable(min(missing, default="users"))
        raise click.ClickException(f"{variable} is not set. It says where that database is on a PostgreSQL server.")
    return {name: address for name, address in known.items() if not wanted or name in wanted}


def _print(console: Console, contents: Mapping[str, Content]) -> None:
    table = Table(box=box.SIMPLE)
    table.add_column("table")
    table.add_column("rows", justify="right")
    table.add_column("SHA-256 at both ends")
    for name, content in contents.items():
        if content.rows:
            table.add_row(name, f"{content.rows:,}", f"[green]{content.sha256[:12]}...")
    console.print(table)


def _tell_what_is_next(settings: Settings, moves: Sequence[Move], folder: Path) -> None:
    """Tell what a suite needs to run on the databases where they are now."""
    known = settings.database_addresses
    if moves[0].to_server:
        changes = [
            f"set {database_variable(one.service.name)} to the address of {one.target}"
            for one in moves
            if known.get(one.service.name) != one.address
        ]
    else:
        changes = [f"unset {database_variable(one.service.name)}" for one in moves if one.service.name in known]
        if folder != settings.data:
            changes.append(f"set INSTA_DATA={folder}")
    if changes:
        click.echo(f"Before the suite starts, {', '.join(changes)}.")
    if any(one.service.name == "posts" for one in moves):
        # By default they are in the folder of the databases.
        where = settings.media_folder if not moves[0].to_server and folder != settings.data else None
        click.echo(f"Images stay in {place_of(settings)}" + (f": set INSTA_MEDIA_URL=file:{where}." if where else "."))
    for one in moves:
        click.echo(f"{one.source} is as it was.")
    click.echo("What was left there holds keys and sessions: delete it once it is not needed.")
