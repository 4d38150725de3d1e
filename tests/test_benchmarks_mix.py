"""The social mix: its graph and its calls are what they are said to be, and wrong answers are noticed."""

from __future__ import annotations

import io
import json
import math
from collections import Counter
from collections.abc import Sequence
from copy import copy
from functools import partial
from itertools import pairwise
from pathlib import Path
from statistics import mean, median
from typing import Any

import pytest
from rich.console import Console

from benchmarks import curves, data, report, sides
from benchmarks.measuring import Measured
from benchmarks.mix import graph, part, search
from benchmarks.mix.apis import Grpc
from benchmarks.mix.checker import Checker, Created, Seen
from benchmarks.mix.contest import Standing
from benchmarks.mix.contestant import Contestant, Step
from benchmarks.mix.plan import PAGE_SIZE, Kind, Plan
from benchmarks.mix.world import COMMENTS, LIKES, World
from benchmarks.report import Part

ANA = 1
RATE = 40.0


@pytest.fixture(scope="module")
def world() -> World:
    return World(most_posts=12)


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


def test_the_mix_is_made_answered_and_looked_at(world: World, tmp_path: Path) -> None:
    """Who takes people for friends of nobody finds the same suite wrong."""
    lonely = copy(world)
    lonely.friends = {user: set() for user in world.friends}
    data.fill(sides.suite_settings(tmp_path / "suite"), world)
    with sides.together(tmp_path / "suite", core=None) as side:
        settings = side.settings
        assert settings is not None
        renewed = partial(data.bearers, settings, range(1, world.users + 1))
        first, second = (Contestant(side, Grpc(), held, renewed, pinned=False) for held in (world, lonely))
        right, wrong = first.step(RATE, 1), second.step(RATE, 1)

    # A busy machine may refuse some calls; none is answered wrongly.
    assert right.faults == []
    assert right.checked >= right.measured.codes["OK"] > 0
    assert any("do not belong here" in fault for fault in wrong.faults)

    standing = Standing(bound=60, rounds={RATE: [right]}, best=RATE)
    figures, said = told(part.summed_up(world, {side.name: standing}, [], bound=60), tmp_path)
    assert figures["sides"]["together"]["best"]["codes"]["OK"] == right.measured.codes["OK"]
    assert figures["sides"]["together"]["answers_wrong"] == 0
    assert f"all {right.checked:,} answers were looked at" in said


def told(found: Part, folder: Path) -> tuple[dict[str, Any], str]:
    """What a part says of itself: in the results, and in the terminal."""
    said = io.StringIO()
    report.show(found, Console(file=said, width=120))
    figures: dict[str, Any] = json.loads(report.save(found, {}, folder).read_text())["mix"]
    return figures, said.getvalue()


def test_latencies_are_plotted_over_rates_below_and_above_the_bound() -> None:
    steps = {rate: [step(rate, p99)] for rate, p99 in ((10.0, 0.004), (20.0, 0.008), (40.0, 0.4), (80.0, math.inf))}
    standing = Standing(bound=0.02, searched=steps)

    (plot,) = part.summed_up(World(most_posts=PAGE_SIZE), {"DRF": standing}, [], 0.02).curves
    lines = curves.text(plot, report.COLORS).plain.splitlines()

    (bound,) = (number for number, line in enumerate(lines) if "bound" in line)
    solid = [(number, line.index("●")) for number, line in enumerate(lines[:-1]) if "●" in line]
    # From above: the late one is at the right. What is late for ever has no place.
    assert [number < bound for number, _ in solid] == [True, False, False]
    assert [place for _, place in solid] == sorted((place for _, place in solid), reverse=True)
    assert "p50 DRF" in lines[-1]


@pytest.mark.parametrize(("capacity", "start"), [(2_222.0, 500.0), (61.0, 500.0), (500.0, 60.0)])
def test_the_search_ends_less_than_a_tenth_below_what_passes(capacity: float, start: float) -> None:
    asked: list[float] = []

    def passes(rate: float) -> bool:
        asked.append(rate)
        return rate <= capacity

    found = search.highest(passes, start)

    assert capacity / 1.1 <= found <= capacity
    assert len(asked) == len(set(asked)) < 15


def test_a_search_gives_up_where_nothing_passes() -> None:
    assert search.highest(lambda rate: False, 500) == 0


def test_the_best_rate_is_the_last_before_one_that_is_late() -> None:
    assert search.highest_rung({3.0: True, 1.0: True, 2.0: True}) == 3
    assert search.highest_rung({1.0: True, 2.0: False, 3.0: True}) == 1
    assert search.highest_rung({1.0: False, 2.0: True}) == 0


def step(rate: float, p99: float, faults: Sequence[str] = ()) -> Step:
    measured = Measured(rate, 0.0, 0.9, 0.0, p99 / 2, p99, Counter({"OK": 100}))
    return Step(rate, p99 / 2, p99, measured, 100, faults)


def test_one_wrong_answer_makes_a_rate_a_bad_one() -> None:
    standing = Standing(bound=0.02)

    assert standing.in_time([step(10, 0.019), step(10, 0.018), step(10, 5.0)])
    assert not standing.in_time([step(10, 0.021), step(10, 0.022), step(10, 0.001)])
    assert not standing.in_time([step(10, 0.001), step(10, 0.001, ["post 7 is missing"])])


def test_rounds_move_to_where_the_best_rate_may_be() -> None:
    standing = Standing(bound=0.02, base=100)
    standing.rounds = {rate: [step(rate, 0.001)] for rate in standing.rates}
    highest = standing.rates[-1]
    standing.settle()
    assert (standing.best, standing.settled) == (highest, False)
    assert standing.rates[0] == pytest.approx(highest)

    lowest = standing.rates[0]
    standing.rounds = {rate: [step(rate, math.inf)] for rate in standing.rates}
    standing.settle()
    assert (standing.best, standing.settled) == (0, False)
    assert standing.rates[-1] == pytest.approx(lowest)

    standing.rounds = {rate: [step(rate, 0.001 if rate < 100 else math.inf)] for rate in standing.rates}
    standing.settle()
    assert standing.best == max(rate for rate in standing.rates if rate < 100)
    assert standing.settled


@pytest.mark.parametrize(
    ("ours", "doubt"),
    [
        (Standing(1, best=80, settled=True, rounds={80.0: [step(80, 0.001)]}), ""),
        (Standing(1, best=80, rounds={80.0: [step(80, 0.001)]}), "together may do more"),
        (Standing(1), "together was in time at no rate"),
        (
            Standing(1, best=80, settled=True, rounds={80.0: [step(80, 0.001)], 90.0: [step(90, 9, ["a", "b"])]}),
            "together answered 2 calls wrongly",
        ),
    ],
)
def test_a_figure_that_does_not_count_says_why(ours: Standing, doubt: str) -> None:
    theirs = Standing(1, best=10, settled=True, rounds={10.0: [step(10, 0.001)]})

    verdict = part.verdict(ours, theirs)

    assert verdict.doubt == doubt
    assert verdict.value == (8 if ours.best else 0)
    assert verdict.word == ("uncounted" if doubt else "met")
