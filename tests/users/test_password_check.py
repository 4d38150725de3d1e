"""Checks of passwords outlive the calls that ask for them."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Iterator
from pathlib import Path

import pytest

from chassis.call import Call, current
from chassis.store import Database, Store
from services.users import throttle
from services.users.accounts import Credentials
from services.users.password_check import PasswordCheck
from services.users.passwords import Passwords
from tests.running import PASSWORD
from tests.users.logins import users_store


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with users_store(tmp_path) as opened:
        yield opened


def counted(db: Database) -> int:
    """How many subjects have failures."""
    return int(db.execute_sql("SELECT count(*) FROM throttle").fetchall()[0][0])


async def test_a_right_password_is_forgiven_though_the_deadline_of_its_call_has_passed(store: Store) -> None:
    passwords = Passwords(4)
    check = PasswordCheck(store, passwords, throttled=True)
    credentials = Credentials(7, await passwords.hash(PASSWORD), 0)
    over = contextvars.copy_context()
    over.run(current.set, Call("/login", "", asyncio.get_running_loop().time(), "trace"))

    matching = check.matches("login", PASSWORD, credentials, throttle.login("ana"))
    matched = await asyncio.get_running_loop().create_task(matching, context=over)

    assert matched
    assert await store.read(counted) == 0
