"""The benchmarks on PostgreSQL: what calls cost of the suite and of the server stand apart. How fast, no test says."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from benchmarks import postgresql, report
from benchmarks.capacity import part as capacity
from benchmarks.data import Seed
from benchmarks.options import Options
from tests import postgres_server

pytestmark = pytest.mark.postgresql

BRIEFLY = Options(rounds=1, seconds=0.3, warm_up=0.1, at_most=4, pinned=False)
SEED = Seed(users=200, posts=300, follows=10)


def test_calls_are_measured_on_a_server(tmp_path: Path) -> None:
    said = io.StringIO()

    with postgres_server.running() as server:
        part = postgresql.run_briefly(BRIEFLY, Console(file=said, width=100), SEED, tmp_path, server)
    figures = json.loads(report.save(part, {}, tmp_path).read_text())["postgresql"]
    report.show(part, Console(file=said, width=120))

    measured = {each["call"]: each for each in figures["measured"]}
    assert measured.keys() == {"GetPost", "LikePost"}
    assert all(each["cpu_microseconds"][0] > 0 < each["database_microseconds"][0] for each in measured.values())
    assert "PostgreSQL" in said.getvalue()


@pytest.mark.soak
def test_the_model_is_fed_and_held_against_a_mix(tmp_path: Path) -> None:
    said = io.StringIO()
    console = Console(file=said, width=140)

    with postgres_server.running() as server:
        part = capacity.measured(BRIEFLY, console, SEED, tmp_path, server)
    figures = json.loads(report.save(part, {}, tmp_path).read_text())["capacity"]
    report.show(part, console)

    costs = figures["costs"]["calls"]
    # A post is one transaction of the posts service; a read changes nothing.
    assert costs["CreatePost"]["commits"].keys() == {"posts"}
    assert costs["CreatePost"]["commits"]["posts"] >= 1
    assert costs["GetPost"]["commits"] == {}
    assert costs["GetPost"]["database"]["users"] < costs["GetPost"]["database"]["social"]
    assert costs["UploadMedia"]["application"] > costs["GetPost"]["application"]
    assert all(sum(cost["wire_bytes"]) > 0 for kind, cost in costs.items() if kind not in ("UploadMedia", "Login"))
    assert all(round_["saturated"]["per_second"] > 0 for of in figures["rounds"].values() for round_ in of)
    assert figures["costs"]["image_bytes"] > 0
    assert len(figures["goals"]) == 4
    assert "100 M people a day" in said.getvalue()
