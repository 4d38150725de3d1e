"""The capacity model: plain arithmetic, which is checked by hand. And the document that shows it."""

from __future__ import annotations

import pytest

from benchmarks import document
from benchmarks.capacity import model
from benchmarks.capacity.day import PEAK, Habit
from benchmarks.capacity.model import Cost, Costs

READ = Cost(application=0.001, database={"posts": 0.0001}, wire_bytes=(100, 750))
WRITE = Cost(0.002, {"social": 0.0005}, {"social": 1.0}, log_bytes=2_000, stored_bytes=500)
COSTS = Costs({"GetPost": READ, "LikePost": WRITE}, {"posts": 0.01}, process_bytes=1e8, image_bytes=1e6)
HABITS = [Habit("GetPost", 10, ""), Habit("LikePost", 2, "")]
# Of as many people each habit is so often a second in the busiest hour as it is a day.
PEOPLE = model.DAY_SECONDS / PEAK


def test_a_mix_costs_what_its_calls_cost_by_their_shares() -> None:
    shares = model.mix([*HABITS, Habit("Login", 5, "")], ["LikePost", "GetPost"])

    assert shares == pytest.approx({"GetPost": 10 / 12, "LikePost": 2 / 12})
    assert model.per_call(shares, {"GetPost": 6.0, "LikePost": 12.0}) == pytest.approx(7.0)


def test_what_people_take_is_the_sum_of_what_their_calls_take() -> None:
    need = model.need(PEOPLE, COSTS, photo_bytes=0, habits=HABITS)

    assert need.calls == pytest.approx(12)
    assert need.cores == pytest.approx((10 * 0.001 + 2 * 0.002) / model.UTILISATION)
    assert need.processes == 1
    posts, social = need.databases["posts"], need.databases["social"]
    # Whoever asks for news takes something, too.
    assert posts["cores"] == pytest.approx(10 * 0.0001 + 0.01)
    assert social["cores"] == pytest.approx(2 * 0.0005)
    assert (posts["commits"], social["commits"]) == pytest.approx((0, 2))
    assert social["write-ahead log"] == pytest.approx(2 * 2_000 / 1e6)
    assert social["connections"] == COSTS.connections
    assert need.rows_bytes == pytest.approx(PEOPLE * 2 * 500 * 365)
    assert need.out_bytes == pytest.approx(10 * (750 + model.FRAMING_BYTES) + 2 * model.FRAMING_BYTES)


def test_a_database_takes_as_many_servers_as_its_scarcest_limit_asks_for() -> None:
    few, many = (model.need(PEOPLE * times, COSTS, 0, HABITS) for times in (1, 100_000))

    assert few.shards("social") == 1
    # 3.5 billion people store 2.5 petabytes in two years, 8 TB to a server.
    assert many.shards("social") == 316
    # 2,334 processes have 10 connections each, of which a server takes 1,000.
    assert many.shards("users") == 24


def test_what_ends_first_comes_first() -> None:
    first, *others = model.saturations(COSTS)

    assert all(first.people <= other.people for other in others)
    at_its_end = model.need(first.people, COSTS, 0)
    assert at_its_end.databases[first.database][first.limit.what] == pytest.approx(first.limit.most, rel=0.01)


def test_a_document_gets_the_tables_that_it_names() -> None:
    place = "Before.\n<!-- table: some, Costs -->\nold\n<!-- end -->\nAfter.\n"
    rows = {"title": "Costs", "headings": ["call", "µs"], "rows": [["GetPost", "1,000"], ["Login", "-"]]}

    new = document.filled(place, {"some": {"tables": [rows]}})

    table = "| call | µs |\n| --- | ---: |\n| GetPost | 1,000 |\n| Login | - |\n"
    assert new == f"Before.\n<!-- table: some, Costs -->\n{table}<!-- end -->\nAfter.\n"
    assert document.filled(new, {"some": {"tables": [rows]}}) == new
    with pytest.raises(LookupError, match="make bench PARTS=some"):
        document.filled(place, {})
