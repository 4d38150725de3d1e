"""A newer version that adds to a large table while two workers of this one serve it, and one of them comes back."""

from __future__ import annotations

import os
import signal
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
from tests.people import until
from tests.running import insta, running
from tests.soak import report
from tests.suite.killing import children

pytestmark = [pytest.mark.soak, pytest.mark.timeout(600)]

# As many as `insta demo` makes within its minute on a busy machine.
LIKES = 300_000


async def test_nobody_meets_an_error_while_a_large_table_gets_a_column_and_an_index(tmp_path: Path) -> None:
    data = tmp_path / "data"
    newer = newer_version(tmp_path / "newer", ADDS_A_COLUMN)
    likes_made(data, LIKES)
    with running("workers", data, superuser=False) as suite:
        log = data / "suite.log"

        async def warned() -> bool:
            warnings = warnings_in(log.read_text())
            assert all(warning["migrations"] == [NAME] for warning in warnings)
            return any(warning["database"] == str(data / "social.db") for warning in warnings)

        migrated = await migrate_while_serving(suite, newer)
        assert not await warned()
        for number, pid in enumerate(children(suite)):
            os.kill(pid, signal.SIGKILL)
            await until(warned)
            await write_and_look(suite, LIKES + 1 + number)
        audit = insta("audit", environment=suite.environment)
    assert audit.returncode == 0, audit.stdout
    report.tell(f"\n{report.machine()}, {LIKES:,} likes: {migrated}")
