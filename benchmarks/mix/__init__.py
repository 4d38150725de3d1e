"""The social mix of DeathStarBench: home feeds, timelines and new posts, on the suite and on its peer."""
