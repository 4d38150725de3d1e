"""What an operator does on the machine of the users database: no token is asked for, access to its file is enough."""

from __future__ import annotations

import asyncio
import os
import re
import sys
from collections.abc import Callable
from typing import TypeVar

import click

from chassis import audit, errors, identity, validation
from chassis.settings import Settings
from chassis.store import Database, Store
from insta.users.v1 import users_pb2
from services.users import accounts, keys, sessions, tokens
from services.users.passwords import Passwords
from suite.composition import SERVICES
from suite.databases import open_store

_ID = re.compile("id:([0-9]{1,18})")

Result = TypeVar("Result")


@click.group()
def superuser() -> None:
    """Manage superusers."""


@superuser.command()
@click.option("--username", prompt=True, help="3 to 30 letters, digits, dots and underscores.")
@click.option("--email", prompt=True, help="An email address.")
@click.option("--first-name", default="Admin", show_default=True, help="1 to 50 characters.")
@click.option("--last-name", default="", help="Up to 50 characters.")
@click.option("--password-stdin", is_flag=True, help="Read the password from standard input in place of asking for it.")
@click.pass_obj
def create(
    settings: Settings, username: str, email: str, first_name: str, last_name: str, password_stdin: bool
) -> None:
    """Create an account that may do everything. The suite may be running meanwhile."""
    if password_stdin:
        password = sys.stdin.readline().rstrip("\n")
    else:
        password = click.prompt("Password", hide_input=True, confirmation_prompt=True)
    request = users_pb2.CreateUserRequest(
        username=username, email=email, password=password, first_name=first_name, last_name=last_name
    )

    def store(users: Store) -> accounts.Account:
        validation.check(request)
        return users.write_now(
            accounts.create,
            username=username,
            email=email,
            password_hash=asyncio.run(Passwords(settings.bcrypt_cost).hash(password)),
            first_name=first_name,
            last_name=last_name,
            bio="",
            superuser=True,
        )

    account = _with_users(settings, store)
    audit.record("superuser created", user_id=account.id, operator_uid=os.getuid())
    click.echo(f"created the superuser {account.username} with the id {account.id}")


@click.command(short_help="Print an access token of a user.")
@click.argument("user")
@click.option("--raw", is_flag=True, help="Print nothing but the token.")
@click.pass_obj
def token(settings: Settings, user: str, raw: bool) -> None:
    """Print an access token of USER (a username, or id:7) as an option for grpcurl. It is valid for 15 minutes.

    It begins a session named "insta token", which ends with it.
    """
    issued = issue_token(settings, user)
    click.echo(issued.text if raw else f"-H 'authorization: Bearer {issued.text}'")


@click.group(name="keys")
def signing_keys() -> None:
    """Manage the keys that sign access tokens."""


@signing_keys.command()
@click.pass_obj
def rotate(settings: Settings) -> None:
    """Publish a new key. It signs in 20 seconds, when all verifiers can know it; the old ones are kept for what they
    signed."""
    key = _with_users(settings, lambda users: users.write_now(keys.rotate))
    audit.record("signing key rotated", kid=key.kid, operator_uid=os.getuid())
    click.echo(f"published the key {key.kid}; it signs in {keys.LEAD_MICROS // 1_000_000} seconds")


def issue_token(settings: Settings, user: str) -> tokens.AccessToken:
    """An access token of a user, given by their username, or as id:7.

    Raises:
        click.ClickException: there is none, or the database cannot be used.
    """
    return _with_users(settings, lambda users: users.write_now(_issue, user))


def _issue(db: Database, user: str) -> tokens.AccessToken:
    keys.ensure(db)
    by_id = _ID.fullmatch(user)
    account = accounts.get(db, int(by_id[1])) if by_id else accounts.look_up(db, user)
    if not account.active:
        raise identity.account_inactive()
    session = sessions.for_operator(db, account.id, identity.LIFETIME_SECONDS * 1_000_000)
    audit.record("token issued", user_id=account.id, session_id=session.id, operator_uid=os.getuid())
    return tokens.issue(keys.signer(db), account, session)


def _with_users(settings: Settings, work: Callable[[Store], Result]) -> Result:
    """Do some work on the users database; what goes wrong becomes a sentence."""
    store = open_store(settings, SERVICES["users"])
    try:
        return work(store)
    except errors.Error as error:
        raise click.ClickException(error.text) from None
    finally:
        store.close()
