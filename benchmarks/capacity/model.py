"""The capacity model: what so many people a day take, from what a call costs. Plain arithmetic, and no measuring."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from benchmarks.capacity import day

DATABASES = ("users", "posts", "social")
# Processors are bought for this much of their time: above it, calls wait for each other.
UTILISATION = 0.6
DAY_SECONDS = 86_400
YEAR_DAYS = 365
# What a request and its answer carry beside their messages: frames, and headers that the connection knows already.
FRAMING_BYTES = 250


@dataclass(frozen=True)
class Cost:
    """What one call takes.

    Attributes:
        application: Seconds of a processor, of the suite together.
        database: The same of the PostgreSQL server, by the database that it was for.
        commits: Transactions that change something, by database.
        log_bytes: Of the write-ahead log.
        stored_bytes: By which databases grow.
        wire_bytes: Of the request and of its answer.
    """

    application: float
    database: Mapping[str, float] = field(default_factory=dict)
    commits: Mapping[str, float] = field(default_factory=dict)
    log_bytes: float = 0
    stored_bytes: float = 0
    wire_bytes: tuple[float, float] = (0, 0)


@dataclass(frozen=True)
class Costs:
    """What the suite takes.

    Attributes:
        calls: By kind.
        idle: Seconds of a processor of each database, in each second, for a process that nobody calls.
        process_bytes: Of memory, for a process.
        image_bytes: Kept of an image: the original that was uploaded and all its variants.
        connections: Of a process to each database.
    """

    calls: Mapping[str, Cost]
    idle: Mapping[str, float]
    process_bytes: float
    image_bytes: float
    connections: int = 10


class Limit(NamedTuple):
    """What one server of a database can do, by assumption: no such server was there to be measured."""

    what: str
    unit: str
    most: float


CORES = Limit("cores", "", 32 * UTILISATION)
CONNECTIONS = Limit("connections", "", 1_000)
COMMITS = Limit("commits", "/s", 20_000)
LOG = Limit("write-ahead log", "MB/s", 100)
STORAGE = Limit("rows of two years", "TB", 8)
LIMITS = (CORES, CONNECTIONS, COMMITS, LOG, STORAGE)


@dataclass(frozen=True)
class Need:
    """What so many people a day take, in the busiest hour.

    Attributes:
        calls: A second.
        cores: Of the suite.
        processes: Of the suite: one a core.
        databases: What each takes, by the name of the limit.
        rows_bytes, images_bytes: That each year adds.
        in_bytes, out_bytes: Of calls, a second.
        uploads_bytes: Of images, a second.
        images_out_bytes: The same, to those who look at them; of that `bucket_bytes` from the bucket.
    """

    people: float
    calls: float
    cores: float
    processes: int
    memory_bytes: float
    databases: Mapping[str, Mapping[str, float]]
    rows_bytes: float
    images_bytes: float
    in_bytes: float
    out_bytes: float
    uploads_bytes: float
    images_out_bytes: float
    bucket_bytes: float

    def shards(self, database: str) -> int:
        """How many servers a database takes."""
        needed = self.databases[database]
        return max(1, *(math.ceil(needed[limit.what] / limit.most) for limit in LIMITS))


def mix(habits: Iterable[day.Habit], kinds: Iterable[str]) -> dict[str, float]:
    """The share of each of these kinds of call, of all calls of these kinds."""
    known = set(kinds)
    per_day = {habit.call: habit.per_day for habit in habits if habit.call in known}
    return {kind: often / sum(per_day.values()) for kind, often in per_day.items()}


def per_call(shares: Mapping[str, float], costs: Mapping[str, float]) -> float:
    """What a call of a mix costs on average."""
    return sum(share * costs[kind] for kind, share in shares.items())


def need(people: float, costs: Costs, photo_bytes: float, habits: Sequence[day.Habit] = day.DAY) -> Need:
    """What so many people a day take.

    Args:
        photo_bytes: Of an image as it is uploaded.
    """
    rates = {habit.call: people * habit.per_day * day.PEAK / DAY_SECONDS for habit in habits}
    a_day = {habit.call: people * habit.per_day for habit in habits}

    def total(of: Mapping[str, float], each: Mapping[str, float]) -> float:
        return sum(rate * each.get(kind, 0.0) for kind, rate in of.items())

    calls = costs.calls
    cores = total(rates, {kind: cost.application for kind, cost in calls.items()}) / UTILISATION
    processes = math.ceil(cores)
    writes = {kind: max(cost.commits, key=lambda name: cost.commits[name], default="") for kind, cost in calls.items()}

    def of_database(name: str) -> Mapping[str, float]:
        changing = {kind: rate for kind, rate in rates.items() if writes.get(kind) == name}
        stored = {kind: count for kind, count in a_day.items() if writes.get(kind) == name}
        busy = total(rates, {kind: cost.database.get(name, 0.0) for kind, cost in calls.items()})
        return {
            CORES.what: busy + processes * costs.idle.get(name, 0.0),
            CONNECTIONS.what: processes * costs.connections,
            COMMITS.what: total(rates, {kind: cost.commits.get(name, 0.0) for kind, cost in calls.items()}),
            LOG.what: total(changing, {kind: cost.log_bytes for kind, cost in calls.items()}) / 1e6,
            STORAGE.what: total(stored, {kind: c.stored_bytes for kind, c in calls.items()}) * 2 * YEAR_DAYS / 1e12,
        }

    pages = sum(rates.get(kind, 0.0) for kind in ("ListHomeFeed", "ListProfilePosts"))
    images_out = (pages * day.IMAGES_A_PAGE + rates.get("GetPost", 0.0)) * day.IMAGE_BYTES
    small = {kind: rate for kind, rate in rates.items() if kind != "UploadMedia"}
    return Need(
        people=people,
        calls=sum(rates.values()),
        cores=cores,
        processes=processes,
        memory_bytes=processes * costs.process_bytes,
        databases={name: of_database(name) for name in DATABASES},
        rows_bytes=total(a_day, {kind: cost.stored_bytes for kind, cost in calls.items()}) * YEAR_DAYS,
        images_bytes=a_day.get("UploadMedia", 0.0) * costs.image_bytes * YEAR_DAYS,
        in_bytes=total(small, {kind: cost.wire_bytes[0] + FRAMING_BYTES for kind, cost in calls.items()}),
        out_bytes=total(small, {kind: cost.wire_bytes[1] + FRAMING_BYTES for kind, cost in calls.items()}),
        uploads_bytes=rates.get("UploadMedia", 0.0) * photo_bytes,
        images_out_bytes=images_out,
        bucket_bytes=images_out * (1 - day.CACHED),
    )


class Saturation(NamedTuple):
    """Where one server of a database ends.

    Attributes:
        people: A day, with whom it has reached a limit.
    """

    database: str
    limit: Limit
    people: float


def saturations(costs: Costs) -> list[Saturation]:
    """What ends first, as people grow: each limit of each database, of one server each."""
    # Everything grows with the people in proportion, but for the last process that is not full.
    people = 1e9
    needed = need(people, costs, photo_bytes=0)
    found = [
        Saturation(name, limit, people * limit.most / used)
        for name in DATABASES
        for limit in LIMITS
        if (used := needed.databases[name][limit.what]) > 0
    ]
    return sorted(found, key=lambda each: each.people)
