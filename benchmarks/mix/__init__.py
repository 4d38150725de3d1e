"""The social mix of DeathStarBench: home feeds, timelines and new posts, on the suite and on its peer."""

from benchmarks.mix.part import NAME, run

__all__ = ["NAME", "run"]
