"""What a login gives away."""

from __future__ import annotations

from pathlib import Path

from tests.people import People
from tests.running import SUPERUSER, running
from tests.soak.timing import answer_times, chance_to_tell

# Of each kind. Were both alike, the chance to tell them apart would lie around 1/2 with a standard deviation of
# sqrt((n + n + 1) / (12 * n * n)), which is 0.046: it leaves the bounds of five of them once in two million runs.
TRIES = 80
BOUNDS = (0.5 - 5 * 0.046, 0.5 + 5 * 0.046)


async def test_a_wrong_password_and_an_unknown_name_take_the_same_time_and_get_the_same_answer(tmp_path: Path) -> None:
    # A hash of this cost takes some 15 ms; without one for unknown names, one could always tell.
    with running("together", tmp_path / "var", INSTA_BCRYPT_COST="8") as suite:
        people = People(suite.address)

        known, unknown = await answer_times(people, [SUPERUSER] * TRIES, ["none"] * TRIES)
        await people.channel.close()

    assert BOUNDS[0] < chance_to_tell(known, unknown) < BOUNDS[1]
