"""A storm of logins, and how the other calls fare in it."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.people import People
from tests.running import running
from tests.soak.load import Load, Outcome, Running
from tests.soak.report import machine, tell

pytestmark = [pytest.mark.soak, pytest.mark.timeout(900)]

ROUNDS = 5
SECONDS = 10.0
READS_PER_SECOND = 200
PEOPLE = 16
# What bcrypt can do is measured by asking for more.
MORE_THAN_POSSIBLE = 60
# Nobody who was let in waits for more than the queue in front of them.
LONGEST_LOGIN_SECONDS = 15.0


def p99_ms(outcomes: Sequence[Outcome]) -> float:
    return statistics.quantiles([outcome.seconds * 1000 for outcome in outcomes], n=100)[98]


async def test_other_calls_take_at_most_twice_as_long_while_four_times_the_possible_logins_come(tmp_path: Path) -> None:
    with running("together", tmp_path / "var", INSTA_BCRYPT_COST="12") as suite:
        people = People(suite.address)
        names = [(await people.join()).username for _ in range(PEOPLE)]
        ana = await people.log_in(names[0])
        post = await ana.post()
        await people.channel.close()

        def reads() -> Running:
            return Running(Load(suite.address, READS_PER_SECOND, SECONDS, token=ana.token, post_id=post.id))

        def logins(per_second: float, seconds: float) -> Running:
            return Running(Load(suite.address, per_second, seconds, names=names))

        possible = _answered(logins(MORE_THAN_POSSIBLE, SECONDS).outcomes()) / SECONDS
        storm_rate = 4 * possible
        tell(f"\n{possible:.1f} logins a second are possible; the storm: {storm_rate:.1f}; {machine()}")
        tell("p99 of GetPost:  quiet     storm    ratio   logins: answered  refused   longest")
        ratios: list[float] = []
        attempts: list[Outcome] = []
        for _ in range(ROUNDS):
            quiet = reads().outcomes()
            # It begins before the calls that are measured, and ends after them.
            storm = logins(storm_rate, SECONDS + 2)
            stormy = reads().outcomes()
            stormed = storm.outcomes()
            assert {outcome.code for outcome in (*quiet, *stormy)} == {"OK"}
            ratios.append(p99_ms(stormy) / p99_ms(quiet))
            attempts += stormed
            answered = _answered(stormed)
            tell(
                f"           {p99_ms(quiet):8.1f} ms {p99_ms(stormy):6.1f} ms {ratios[-1]:7.2f}"
                f" {answered:17} {len(stormed) - answered:8} {max(login.seconds for login in stormed):7.2f} s"
            )
        tell(f"median of the ratios: {statistics.median(ratios):.2f}; {machine()}")

    refused = [login for login in attempts if login.code != "OK"]
    assert {(login.code, login.reason) for login in refused} == {("RESOURCE_EXHAUSTED", "OVERLOADED")}
    assert all(login.retry_after for login in refused)
    assert max(login.seconds for login in attempts) < LONGEST_LOGIN_SECONDS
    assert statistics.median(ratios) <= 2


def _answered(outcomes: Sequence[Outcome]) -> int:
    return sum(outcome.code == "OK" for outcome in outcomes)
