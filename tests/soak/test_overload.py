"""Twice and five times the calls that a suite can answer."""

from __future__ import annotations

import statistics
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from rich.console import Console
from rich.table import Table

from benchmarks.load import Load, Running, rpc
from benchmarks.processes import cpu_seconds, pin
from insta.posts.v1 import posts_pb2
from tests.overloading import Overload, Phase
from tests.people import People
from tests.running import running
from tests.soak.report import machine, tell

pytestmark = [pytest.mark.soak, pytest.mark.timeout(600)]

SERVER_CORE, LOAD_CORE = 0, 1
ROUNDS = 3
SECONDS = 10.0
# By how many times too many: the longest that accepted calls take, at the 99th percentile.
BOUNDS = {2: 0.25, 5: 0.5}
GOODPUT = 0.9
RECOVERED = 0.95
RECOVERY_SECONDS = 5


async def test_most_of_what_is_left_is_answered_soon(tmp_path: Path) -> None:
    tell(machine())
    settings = {"INSTA_MAX_WAIT_MILLISECONDS": "100", "INSTA_LOG_LEVEL": "info"}
    with running("together", tmp_path / "var", **settings) as suite:
        assert suite.process is not None
        pin(suite.process.pid, SERVER_CORE)
        people = People(suite.address)
        overload = Overload(suite, people, LOAD_CORE)
        await overload.prepare()
        await overload.peak(2)
        rounds = [await _round(overload) for _ in range(ROUNDS)]
        await people.channel.close()

    table = Table(
        "times", "offered/s", "refusal µs", "accepted/s", "of what is left", "p99 ms", "health max ms", "then, of peak"
    )
    for factor in BOUNDS:
        for measured in rounds:
            table.add_row(*measured[factor].cells)
    Console(width=100).print(table)
    for factor, bound in BOUNDS.items():
        of_factor = [measured[factor] for measured in rounds]
        assert {code for each in of_factor for code in each.phase.codes} == {"OK", "RESOURCE_EXHAUSTED"}
        assert statistics.median(each.goodput for each in of_factor) >= GOODPUT
        assert statistics.median(each.phase.p99 for each in of_factor) < bound
        assert statistics.median(each.recovered for each in of_factor) >= RECOVERED
        assert max(second for each in of_factor for second in each.phase.health_seconds) < 1


@dataclass(frozen=True)
class Measured:
    """What came of so many times too many calls.

    Attributes:
        refusal: Seconds of the processor that it takes to refuse a call.
        goodput: The accepted calls, to those that the core could have answered in the time that refusing left.
        recovered: The most calls in a second, of the seconds in which it has to recover, to the peak of before.
    """

    factor: int
    offered: float
    refusal: float
    phase: Phase
    goodput: float
    recovered: float

    @property
    def cells(self) -> tuple[str, ...]:
        """A row of the table."""
        return (
            f"{self.factor}",
            f"{self.offered:.0f}",
            f"{self.refusal * 1e6:.0f}",
            f"{self.phase.accepted:.0f}",
            f"{self.goodput:.0%}",
            f"{self.phase.p99 * 1000:.0f}",
            f"{max(self.phase.health_seconds) * 1000:.0f}",
            f"{self.recovered:.0%}",
        )


async def _round(overload: Overload) -> dict[int, Measured]:
    # In each round anew: the machine is not as fast from one minute to the next.
    refusal = _seconds_to_refuse()
    before = await overload.peak(SECONDS / 2)
    call = before.cpu_seconds / before.codes["OK"]
    measured = {}
    for factor in BOUNDS:
        offered = factor * before.accepted
        phase = await overload.run(offered, SECONDS)
        left = 1 - phase.refused * refusal
        after = [(await overload.peak(RECOVERY_SECONDS / 2)).accepted for _ in range(2)]
        measured[factor] = Measured(
            factor, offered, refusal, phase, phase.accepted * call / left, max(after) / before.accepted
        )
    return measured


def _seconds_to_refuse() -> float:
    """What it costs of the processor to refuse a call."""
    with _refusing() as (pid, address):
        pin(pid, SERVER_CORE)
        get = rpc("/insta.posts.v1.PostService/GetPost", posts_pb2.GetPostRequest(post_id=1))
        load = Load(address, [get], ["Bearer token"], 5, at_once=256, core=LOAD_CORE)
        began = cpu_seconds(pid)
        outcomes = Running(load).outcomes()
        assert {outcome.code for outcome in outcomes} == {"RESOURCE_EXHAUSTED"}
        return (cpu_seconds(pid) - began) / len(outcomes)


@contextmanager
def _refusing() -> Iterator[tuple[int, str]]:
    """The pid and the address of a server that refuses every call."""
    command = [sys.executable, "-m", "tests.soak.refusing"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        yield process.pid, process.stdout.readline().strip()
        process.stdin.close()
