"""A newer version that adds to the databases while this one serves them, and this one afterwards."""

from __future__ import annotations

from pathlib import Path

from click.testing import CliRunner

from suite.main import main
from tests import databases
from tests.migrating import (
    ADDS_A_COLUMN,
    FAILS,
    NAME,
    likes_made,
    migrate_while_serving,
    newer_version,
    warnings_in,
    write_and_look,
)
from tests.running import environment, insta, running

LIKES = 20_000


# With two workers, one of them started again, and with more likes: tests/soak.
async def test_a_newer_version_adds_a_column_while_this_one_serves(tmp_path: Path) -> None:
    data = tmp_path / "data"
    newer = newer_version(tmp_path / "newer", ADDS_A_COLUMN)
    likes_made(data, LIKES)
    with running("together", data, superuser=False) as suite:
        await migrate_while_serving(suite, newer)
        await write_and_look(suite, LIKES + 1)
        # This version, started on what is newer.
        audit = CliRunner().invoke(main, ["audit"], env=suite.environment)

    assert audit.exit_code == 0, audit.output
    (warning,) = warnings_in(audit.stderr)
    assert warning["migrations"] == [NAME]
    assert warning["database"] == databases.place(data / "social.db")


def test_a_start_whose_migration_fails_ends_with_a_sentence(tmp_path: Path) -> None:
    given = environment(tmp_path / "data")
    newer = newer_version(tmp_path / "newer", FAILS)

    failed = insta("up", environment=given, version=newer)

    assert failed.returncode == 1
    (sentence,) = failed.stderr.splitlines()
    assert sentence.startswith(f"Error: migration {NAME} of {databases.place(tmp_path / 'data' / 'social.db')} failed")
    assert "in the middle" in sentence
