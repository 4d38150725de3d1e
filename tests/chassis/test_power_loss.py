"""A loss of power loses no write that was answered, and corrupts nothing."""

from __future__ import annotations

import pytest

from chassis import sqlite, wal
from tests.chassis.crashes import crash

pytestmark = pytest.mark.sqlite


@pytest.mark.parametrize("limit", [wal.LIMIT_BYTES, 50_000], ids=["as it is", "log kept very short"])
async def test_no_write_that_was_answered_is_lost_with_the_power(limit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wal, "LIMIT_BYTES", limit)
    monkeypatch.setitem(sqlite._PRAGMAS, "journal_size_limit", limit)

    outcome = await crash(points=60, seed=1)

    assert (outcome.corrupt, outcome.halves, outcome.lost) == ([], [], [])
    assert outcome.acknowledged > 100


async def test_a_store_that_syncs_less_often_would_lose_some(monkeypatch: pytest.MonkeyPatch) -> None:
    """So the test above can tell."""
    monkeypatch.setitem(sqlite._PRAGMAS, "synchronous", "normal")

    outcome = await crash(points=60, seed=1)

    assert outcome.lost
    assert (outcome.corrupt, outcome.halves) == ([], [])
