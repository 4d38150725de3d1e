"""When a token that was revoked is refused: the same promise as in tests/soak, tried some times."""

from __future__ import annotations

from tests.people import People, Person
from tests.running import RunningSuite
from tests.soak.revocation import WAYS, lags


async def test_revoked_tokens_are_refused_within_a_second_by_every_process(
    suite: RunningSuite, people: People, boss: Person
) -> None:
    found = await lags(suite, people, boss, 2 * len(WAYS))

    assert {lag.way for lag in found} == set(WAYS)
    assert max(max(lag.seconds.values()) for lag in found) < 1
