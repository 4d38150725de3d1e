"""The social mix as a part of the benchmarks: sets up both sides, lets them compete, and says how they did."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from benchmarks import peer
from benchmarks.mix import contest, sides
from benchmarks.mix.plan import PAGE_SIZE, Kind
from benchmarks.mix.world import World
from benchmarks.sides import BUILD

TARGET, AIM = 8.0, 10.0
# Where the search begins, below what any machine of today does.
_SUITE_START, _DRF_START = 500.0, 60.0


def run(rounds: int, seconds: float, bound: float = contest.BOUND_SECONDS) -> dict[str, Any]:
    """Measure it. Takes `seconds` for each of about twenty steps, and of ten more for each round."""
    programs = peer.install()
    world = World()
    with (
        tempfile.TemporaryDirectory(dir=BUILD) as folder,
        sides.suite(Path(folder) / "suite", world) as suite,
        sides.drf(Path(folder) / "drf", programs, world) as drf,
    ):
        standings = contest.hold({suite: _SUITE_START, drf: _DRF_START}, rounds, seconds, bound)
        ours, theirs = standings[suite.name]["best"], standings[drf.name]["best"]
    return {
        "people": world.users,
        "edges": len(world.follows) // 2,
        "posts": world.posts,
        "page_size": PAGE_SIZE,
        "mix": {kind.name.lower(): kind.value for kind in Kind},
        "bound": bound,
        "seconds": seconds,
        "sides": standings,
        "ratio": ours["per_second"] / theirs["per_second"] if ours and theirs else None,
        "target": TARGET,
        "aim": AIM,
    }
