"""A loss of power loses no write that was answered, and corrupts nothing."""

from __future__ import annotations

import pytest

from chassis import store
from tests.chassis.crashes import crash


async def test_no_write_that_was_answered_is_lost_with_the_power() -> None:
    outcome = await crash(points=60, seed=1)

    assert (outcome.corrupt, outcome.halves, outcome.lost) == ([], [], [])
    assert outcome.acknowledged > 100


async def test_a_store_that_syncs_less_often_would_lose_some(monkeypatch: pytest.MonkeyPatch) -> None:
    """So the test above can tell."""
    monkeypatch.setitem(store._PRAGMAS, "synchronous", "normal")

    outcome = await crash(points=60, seed=1)

    assert outcome.lost
    assert (outcome.corrupt, outcome.halves) == ([], [])
