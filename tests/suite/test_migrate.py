"""`insta migrate`: databases that are brought up to date before a newer version starts."""

from __future__ import annotations

from pathlib import Path

from suite.composition import SERVICES
from tests.migrating import ADDS_A_COLUMN, FAILS, NAME, newer_version
from tests.running import environment, insta, insta_here, running

_NAMES = {
    service.name: sorted(file.stem for file in service.migrations.glob("0*.py"))
    for service in SERVICES.values()
    if service.migrations is not None
}


def test_databases_are_made_and_a_second_time_changes_nothing(tmp_path: Path) -> None:
    given = environment(tmp_path / "data")

    first, second = (insta_here("migrate", environment=given) for _ in range(2))

    assert (first.returncode, second.returncode) == (0, 0)
    assert _told(first.stdout) == _NAMES
    assert _told(second.stdout) == {name: ["up to date"] for name in _NAMES}


def test_a_newer_version_applies_what_it_brings_while_this_one_serves(tmp_path: Path) -> None:
    newer = newer_version(tmp_path / "newer", ADDS_A_COLUMN)
    with running("together", tmp_path / "data", superuser=False) as suite:
        migrated = insta("migrate", environment=suite.environment, version=newer)

    assert migrated.returncode == 0, migrated.stderr
    assert _told(migrated.stdout) == {"users": ["up to date"], "posts": ["up to date"], "social": [NAME]}


def test_a_migration_that_fails_is_told_in_a_sentence(tmp_path: Path) -> None:
    given = environment(tmp_path / "data")
    newer = newer_version(tmp_path / "newer", FAILS)

    failed = insta("migrate", environment=given, version=newer)

    assert failed.returncode == 1
    assert failed.stderr.splitlines()[-1].startswith(f"Error: migration {NAME} of ")
    assert _told(failed.stdout) == {name: _NAMES[name] for name in ("users", "posts")}


def _told(said: str) -> dict[str, list[str]]:
    return {name: rest.split(", ") for name, rest in (line.split(maxsplit=1) for line in said.splitlines())}
