"""The benchmarks of size and of slow disks: a short form of each measures what it says. How fast it is says no test."""

from __future__ import annotations

import asyncio
import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from benchmarks import disk, report, scale, sizes
from benchmarks.options import Options
from benchmarks.sizes import Network, Size

BRIEFLY = Options(rounds=1, seconds=0.2, warm_up=0.1, at_most=4, pinned=False)
SIZE = Size("tiny", 400, 150, 3_000, 400, star_followers=100, hit_likes=100, readers=((2, 10),))
FEED = "ListHomeFeed of 20, 10 followees"
NAMES = {"GetPost", FEED, "LikePost and UnlikePost"}


def test_calls_are_measured_in_a_network_and_answers_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sizes, "KEPT", tmp_path / "networks")
    monkeypatch.setattr(scale, "BUILD", tmp_path)
    said = io.StringIO()
    console = Console(file=said, width=120)

    part = scale.of_sizes([SIZE], BRIEFLY, console, NAMES)
    figures = json.loads(report.save(part, {}, tmp_path).read_text())["scale"]
    report.show(part, console)

    measured = {each["call"]: each for each in figures["measured"]}
    assert measured.keys() == NAMES
    # A busy machine may refuse some calls, and give the suite hardly any time in one of the short loads.
    assert all({"OK"} <= set(each["codes"]) <= {"OK", "RESOURCE_EXHAUSTED"} for each in measured.values())
    assert any(each["cpu_microseconds"][0] > 0 for each in measured.values())
    assert not figures["wrong"]
    assert figures["rss_bytes"][0] > 0
    assert "memory" in said.getvalue()


def test_a_network_is_what_its_size_says() -> None:
    network = Network(SIZE)
    likes, follows = list(network.likes()), list(network.follows())

    assert (len(list(network.people())), len(list(network.posts())), len(likes)) == (400, 3_000, 400)
    assert len({(user, post) for _, user, post in likes}) == 400, "somebody likes a post twice"
    assert sum(post == network.hit for _, _, post in likes) == 100
    assert sum(followee == network.star for _, _, followee in follows) == 100
    for reader in network.readers[10]:
        assert sum(follower == reader for _, follower, _ in follows) == 10
    assert [list(Network(SIZE).likes()), list(Network(SIZE).follows())] == [likes, follows]


def test_a_feed_that_lacks_a_post_is_noticed() -> None:
    (feed,) = (kind for kind in scale.kinds(SIZE) if kind.name == FEED)

    assert not feed.ask(Network(SIZE), scale.Random(1)).check(b"")


def test_many_writers_share_a_sync_and_one_alone_waits_for_its_own(tmp_path: Path) -> None:
    many = asyncio.run(disk.write(tmp_path / "many", 32, 0.3))
    alone = asyncio.run(disk.write(tmp_path / "alone", 1, 0.3))

    assert many.syncs < 0.5
    assert alone.syncs >= 1
    assert alone.p50 >= disk.SYNC_SECONDS
