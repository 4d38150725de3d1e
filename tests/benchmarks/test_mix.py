"""The social mix: its graph and its calls are what they are said to be, and wrong answers are noticed."""

from __future__ import annotations

import math
from collections import Counter
from itertools import pairwise
from statistics import mean, median

import pytest

from benchmarks.mix import graph
from benchmarks.mix.checker import Checker, Created, Seen
from benchmarks.mix.plan import PAGE_SIZE, Kind, Plan
from benchmarks.mix.world import COMMENTS, LIKES, World

ANA = 1


@pytest.fixture(scope="module")
def world() -> World:
    return World()


@pytest.fixture
def checker(world: World) -> Checker:
    return Checker(world)


def test_the_graph_has_the_numbers_of_the_college(world: World) -> None:
    pairs = {frozenset(follow) for follow in world.follows}
    degrees = sorted(Counter(follower for follower, _ in world.follows).values())

    assert all(len(pair) == 2 for pair in pairs), "somebody follows themselves"
    assert len(world.follows) == len(set(world.follows)) == 2 * len(pairs), "a follow is not mutual, or there twice"
    assert (len(degrees), len(pairs)) == (962, 18_812)
    assert (median(degrees), degrees[math.ceil(0.99 * 962) - 1], degrees[-1]) == (29, 155, 313)


def test_another_seed_makes_another_graph_and_the_same_one_the_same(world: World) -> None:
    mine = sorted({(min(follow), max(follow)) for follow in world.follows})

    assert graph.friendships(1) == mine
    assert graph.friendships(2) != mine


def test_no_timeline_is_empty(world: World) -> None:
    written = Counter(world.authors)

    assert min(written[user] for user in world.friends) >= PAGE_SIZE


def test_calls_come_at_random_as_often_as_the_mix_says() -> None:
    plan = Plan("7", users=962, per_second=1_000, seconds=19, warm_up=1)
    arrivals = plan.arrivals()
    gaps = [later.due - earlier.due for earlier, later in pairwise(arrivals)]
    kinds = Counter(arrival.kind for arrival in arrivals)

    assert plan.arrivals() == arrivals
    assert len({arrival.name for arrival in arrivals}) == len(arrivals)
    assert -1 <= arrivals[0].due < arrivals[-1].due < 19
    # Exponential: as many are below the median of that distribution as above it.
    assert mean(gaps) == pytest.approx(0.001, rel=0.03)
    assert median(gaps) == pytest.approx(0.001 * math.log(2), rel=0.05)
    assert [kinds[kind] / len(arrivals) for kind in Kind] == pytest.approx([0.6, 0.3, 0.1], abs=0.015)
    assert {arrival.caller for arrival in arrivals} == set(range(1, 963))
    assert all(arrival.subject == arrival.caller for arrival in arrivals if arrival.kind is not Kind.TIMELINE)


def page_of(world: World, authors: set[int], skip: int = 0) -> list[Seen]:
    """The newest posts of these authors, as they were put there."""
    newest = [post for post in range(world.posts, 0, -1) if world.authors[post - 1] in authors]
    return [Seen(post, world.authors[post - 1], LIKES, COMMENTS) for post in newest[skip : skip + PAGE_SIZE]]


def test_right_pages_pass(world: World, checker: Checker) -> None:
    for user in (ANA, world.users):
        assert checker.home(user, page_of(world, world.friends[user]), 0) == ""
        assert checker.timeline(user, page_of(world, {user}), 0) == ""


def test_the_post_of_a_stranger_is_noticed(world: World, checker: Checker) -> None:
    everybody = set(world.friends)
    assert "do not belong" in checker.home(ANA, page_of(world, everybody), 0)
    assert "do not belong" in checker.timeline(ANA, page_of(world, world.friends[ANA]), 0)


def test_a_wrong_author_is_noticed(world: World, checker: Checker) -> None:
    page = page_of(world, world.friends[ANA])
    other = next(friend for friend in world.friends[ANA] if friend != page[3].author_id)
    page[3] = page[3]._replace(author_id=other)

    assert f"is by {world.authors[page[3].post_id - 1]}" in checker.home(ANA, page, 0)


def test_a_wrong_order_and_a_post_shown_twice_are_noticed(world: World, checker: Checker) -> None:
    page = page_of(world, world.friends[ANA])

    assert "comes after" in checker.home(ANA, [page[1], page[0], *page[2:]], 0)
    assert "comes after" in checker.home(ANA, [page[0], *page[:-1]], 0)


def test_a_gap_and_a_page_that_is_too_short_or_too_long_are_noticed(world: World, checker: Checker) -> None:
    friends = world.friends[ANA]
    page = page_of(world, friends)
    later = page_of(world, friends, skip=1)

    assert f"post {page[0].post_id} by" in checker.home(ANA, later, 0)
    assert f"post {page[4].post_id} by" in checker.home(ANA, [*page[:4], *page[5:], later[-1]], 0)
    assert "is missing" in checker.home(ANA, page[:-1], 0)
    assert "is missing" in checker.timeline(ANA, [], 0)
    assert "11 posts" in checker.home(ANA, [*page, later[-1]], 0)


def test_wrong_counts_are_noticed(world: World, checker: Checker) -> None:
    page = page_of(world, {ANA})
    page[0] = page[0]._replace(like_count=LIKES + 1)

    assert "11 likes" in checker.timeline(ANA, page, 0)


def test_a_new_post_must_be_there_once_it_was_acknowledged(world: World, checker: Checker) -> None:
    """Before, it may be there: it was stored, and the answer on its way."""
    new = world.posts + 1
    assert checker.learn([Created(new, ANA, acknowledged=2.0)]) == []
    without = page_of(world, {ANA})
    with_it = [Seen(new, ANA, 0, 0), *without[:-1]]

    assert [checker.timeline(ANA, page, 1.0) for page in (with_it, without)] == ["", ""]
    assert checker.timeline(ANA, with_it, 3.0) == ""
    assert f"post {new} by {ANA} is missing" in checker.timeline(ANA, without, 3.0)
    friend = min(world.friends[ANA])
    assert "is missing" in checker.home(friend, page_of(world, world.friends[friend]), 3.0)
    # It was there before the next load begins, whatever the clock of that one says.
    checker.learn([])
    assert "is missing" in checker.timeline(ANA, without, -1.0)


def test_a_post_that_nobody_wrote_is_noticed(world: World, checker: Checker) -> None:
    """Unless its author got no answer: then it may be there, and nobody knows its id."""
    new = world.posts + 1
    page = [Seen(new, ANA, 0, 0), *page_of(world, {ANA})[:-1]]

    assert "was never written" in checker.timeline(ANA, page, 0)
    checker.learn([], unsure=[ANA])
    assert checker.timeline(ANA, page, 0) == ""


def test_an_id_that_was_given_before_is_noticed(world: World, checker: Checker) -> None:
    assert checker.learn([Created(world.posts, ANA, 1.0)]) == [f"the new post {world.posts} has the id of another one"]
