"""`insta audit` for tests: what it says, and databases that are changed behind the back of their services."""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

from click.testing import CliRunner

from suite.main import main
from tests import databases
from tests.running import ON_POSTGRESQL


class Said(NamedTuple):
    """How an audit ended, and what it said."""

    code: int
    stdout: str
    stderr: str


def audited(environment: Mapping[str, str], *options: str) -> Said:
    """Run the command in this process, which is faster."""
    result = CliRunner().invoke(main, ["audit", *options], env=environment)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return Said(result.exit_code, result.stdout, result.stderr)


def repaired(environment: Mapping[str, str]) -> Said:
    """Run it, and have it mend what it finds."""
    return audited(environment, "--repair")


def differences(said: Said) -> dict[str, int]:
    """How many differences each check found, by "service: check", without those that found none."""
    # The last table: after a repair there are two.
    table = said.stdout.rpartition("After the repair:")[2]
    found = {}
    for line in table.splitlines():
        if row := re.match(r" +(users|posts|social) +(.+?) +([\d,]+) +([\d,]+) *$", line):
            found[f"{row[1]}: {row[2]}"] = int(row[4].replace(",", ""))
    assert len(found) > (17 if ON_POSTGRESQL else 20) or any("integrity" in name for name in found), said
    differing = {name: count for name, count in found.items() if count}
    assert said.code == bool(differing), said
    return differing


def database(environment: Mapping[str, str], service: str) -> closing[databases.Connection]:
    """A database behind the back of its service."""
    return closing(databases.Connection(Path(environment["INSTA_DATA"]) / f"{service}.db"))


def change(environment: Mapping[str, str], service: str, statement: str) -> None:
    with database(environment, service) as connection:
        connection.execute(statement)


def read(environment: Mapping[str, str], service: str, query: str) -> list[tuple[object, ...]]:
    with database(environment, service) as connection:
        return connection.execute(query)
