"""A thousand losses of power."""

from __future__ import annotations

import pytest

from tests.chassis.crashes import crash

pytestmark = [pytest.mark.soak, pytest.mark.timeout(900)]


async def test_no_write_that_was_answered_is_lost_in_a_thousand_losses_of_power() -> None:
    outcome = await crash(points=1000, seed=1000)

    print(f"\n{outcome.points} losses of power, {outcome.acknowledged} writes answered")  # noqa: T201
    assert (outcome.corrupt, outcome.halves, outcome.lost) == ([], [], [])
