"""A newer version that adds to a large table while two workers of this one serve it, and one of them comes back."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest

from tests.migrating import (
    ADDS_A_COLUMN,
    NAME,
    likes_made,
    migrate_while_serving,
    newer_version,
    warnings_in,
    write_and_look,
)
from tests.people import People, until
from tests.running import RunningSuite, insta, running
from tests.soak import report
from tests.suite.killing import children, kill

pytestmark = [pytest.mark.soak, pytest.mark.timeout(600)]

# As many as `insta demo` makes within its minute on a busy machine.
LIKES = 300_000


async def test_nobody_meets_an_error_while_a_large_table_gets_a_column_and_an_index(tmp_path: Path) -> None:
    data = tmp_path / "data"
    newer = newer_version(tmp_path / "newer", ADDS_A_COLUMN)
    likes_made(data, LIKES)
    with running("workers", data, superuser=False) as suite:
        log = data / "suite.log"

        async def warned() -> int:
            warnings = warnings_in(log.read_text())
            assert all(warning["migrations"] == [NAME] for warning in warnings)
            return len(warnings)

        migrated = await migrate_while_serving(suite, newer)
        assert await warned() == 0
        for number, pid in enumerate(children(suite), 1):
            await kill(suite, pid, partial(answers, suite))
            await until(warned, number)
        await write_and_look(suite, LIKES + 1)
        audit = insta("audit", environment=suite.environment)
    assert audit.returncode == 0, audit.stdout
    report.tell(f"\n{report.machine()}, {LIKES:,} likes: {migrated}")


async def answers(suite: RunningSuite) -> None:
    """Make one call on a connection of its own."""
    people = People(suite.address)
    try:
        await people.join()
    finally:
        await people.channel.close()
