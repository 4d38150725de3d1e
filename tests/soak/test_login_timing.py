"""Whether the time of a refused login tells if somebody has the name."""

from __future__ import annotations

import statistics
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.people import People
from tests.running import SUPERUSER, running
from tests.soak.report import tell
from tests.soak.timing import answer_times, chance_to_tell

pytestmark = [pytest.mark.soak, pytest.mark.timeout(900)]


@asynccontextmanager
async def people_of_costly_passwords(tmp_path: Path, **settings: str) -> AsyncIterator[People]:
    with running("together", tmp_path / "var", INSTA_BCRYPT_COST="12", **settings) as suite:
        people = People(suite.address)
        yield people
        await people.channel.close()


def told_apart(known: list[float], unknown: list[float]) -> float:
    chance = chance_to_tell(known, unknown)
    medians = [statistics.median(seconds) * 1000 for seconds in (known, unknown)]
    tell(f"\n{len(known)} + {len(unknown)} logins: medians {medians[0]:.1f} and {medians[1]:.1f} ms, AUC {chance:.3f}")
    return chance


async def test_a_wrong_password_and_an_unknown_name_cannot_be_told_apart_by_their_times(tmp_path: Path) -> None:
    async with people_of_costly_passwords(tmp_path) as people:
        known, unknown = await answer_times(people, [SUPERUSER] * 200, ["none"] * 200)

    # Chance alone leaves these bounds once in 2,000 runs: the standard deviation is 0.029.
    assert 0.4 < told_apart(known, unknown) < 0.6


async def test_nor_where_failures_are_counted(tmp_path: Path) -> None:
    # An account makes nobody wait for its first 5 failures, an address for its first 100.
    count = 49
    async with people_of_costly_passwords(tmp_path, INSTA_LOGIN_THROTTLE="true") as people:
        names = [(await people.join()).username for _ in range(count)]

        known, unknown = await answer_times(people, names, [f"{name}x" for name in names])

    # Five standard deviations of 0.059: more tries from one address would have to wait.
    assert 0.2 < told_apart(known, unknown) < 0.8
