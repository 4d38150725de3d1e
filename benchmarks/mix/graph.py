"""A made-up graph of friends: as many people, edges and friends of each as a college's network on a social site had.

DeathStarBench drives its social network over the graph of such a college (socfb-Reed98: 962 people, 18,812 mutual
edges). Its size and the spread of its degrees are kept here; who knows whom is drawn at random.
"""

from __future__ import annotations

from random import Random

PEOPLE = 962
EDGES = 18_812

# How many friends somebody has falls with their rank (Zipf and Mandelbrot): so many at ranks 1, 10 (the 99th percentile
# of 962 people) and about 481 (the median).
_MOST = 313
_SHIFT = 1.36
_EXPONENT = 0.4475
_P99_RANK = 10
_MEDIAN_RANK = PEOPLE // 2
# So many swaps for each edge leave nothing of the order in which the edges were laid.
_SWAPS_PER_EDGE = 4

Edge = tuple[int, int]


def degrees() -> list[int]:
    """How many friends each has, the most first."""
    law = [round(_MOST * ((1 + _SHIFT) / (rank + _SHIFT)) ** _EXPONENT) for rank in range(1, PEOPLE + 1)]
    # Rounding leaves some ends of edges over. They go to those of whom neither percentile speaks.
    between = range(_P99_RANK, _MEDIAN_RANK - 1)
    each, rest = divmod(2 * EDGES - sum(law), len(between))
    for place, index in enumerate(between):
        law[index] += each + (place < rest)
    return law


def friendships(seed: int) -> list[Edge]:
    """Who is a friend of whom, each pair once, as numbers from 1 to `PEOPLE`; the same for the same seed."""
    rng = Random(f"{seed} friendships")
    people = list(range(1, PEOPLE + 1))
    rng.shuffle(people)
    edges = _laid(dict(zip(people, degrees(), strict=True)))
    _mix(edges, rng)
    return sorted(edges)


def _laid(wanted: dict[int, int]) -> list[Edge]:
    """Edges that give each person their number of friends (Havel and Hakimi)."""
    edges = []
    left = dict(wanted)
    people = sorted(left, key=left.__getitem__)
    while people:
        person = people.pop()
        for friend in people[len(people) - left[person] :]:
            left[friend] -= 1
            edges.append(_edge(person, friend))
        people.sort(key=left.__getitem__)
    return edges


def _mix(edges: list[Edge], rng: Random) -> None:
    """Let pairs of edges swap an end: everybody keeps their number of friends, not who they are."""
    there = set(edges)
    for _ in range(_SWAPS_PER_EDGE * len(edges)):
        first, second = int(rng.random() * len(edges)), int(rng.random() * len(edges))
        (a, b), (c, d) = edges[first], edges[second]
        if rng.random() < 0.5:
            c, d = d, c
        one, other = _edge(a, d), _edge(c, b)
        if a != d and c != b and one not in there and other not in there:
            there -= {edges[first], edges[second]}
            there |= {one, other}
            edges[first], edges[second] = one, other


def _edge(a: int, b: int) -> Edge:
    return (a, b) if a < b else (b, a)
