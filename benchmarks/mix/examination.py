"""Looks at the answers of a load after it: at every one of them, in the generator's own time."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from benchmarks.load import Outcome
from benchmarks.mix.apis import Api
from benchmarks.mix.checker import Checker, Created
from benchmarks.mix.plan import Arrival, Kind


class Findings(NamedTuple):
    """What a look at the answers of a load found.

    Attributes:
        checked: So many answers, each of which was looked at.
        faults: What is wrong with some of them.
    """

    checked: int
    faults: Sequence[str]


def examine(checker: Checker, api: Api, arrivals: Sequence[Arrival], outcomes: Iterable[Outcome]) -> Findings:
    """Look at the answers of a load, all of which were kept.

    Args:
        arrivals: The calls that the numbers of the outcomes mean.
    """
    answered, unsure = [], set()
    for outcome in outcomes:
        arrival = arrivals[outcome.call]
        if outcome.code == "OK":
            answered.append((arrival, outcome, outcome.message))
        elif arrival.kind is Kind.CREATE:
            unsure.add(arrival.caller)
    created = [
        Created(api.created(answer), arrival.caller, outcome.due + outcome.seconds)
        for arrival, outcome, answer in answered
        if arrival.kind is Kind.CREATE
    ]
    faults = checker.learn(created, unsure)
    for arrival, outcome, answer in answered:
        if arrival.kind is Kind.HOME:
            fault = checker.home(arrival.caller, api.page(arrival.kind, answer), outcome.due)
        elif arrival.kind is Kind.TIMELINE:
            fault = checker.timeline(arrival.subject, api.page(arrival.kind, answer), outcome.due)
        else:
            continue
        if fault:
            faults.append(f"{arrival.kind.name} {arrival.name} by {arrival.caller}: {fault}")
    return Findings(len(answered), faults)
