"""What an audit compares, and how."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from chassis import audit as audit_log
from chassis.consistency import AT_ONCE


class Page(NamedTuple):
    """Some of what a check compares: how much, what differs of it, and the id to go on above (None: that was all)."""

    size: int
    suspicious: Sequence[int | str]
    above: int | None


@dataclass(frozen=True)
class Check:
    """One thing that is compared.

    Attributes:
        page: Compares some, above an id. What differs may be on its way still.
        remaining: Those of what differed that differ now that all that was on its way has come.
        mend: Mends what differs, some at a time. Without it, what goes on beside the calls of a suite does.
        advice: What somebody has to know to mend what is left.
    """

    service: str
    name: str
    page: Callable[[int], Page]
    remaining: Callable[[Sequence[Any]], Sequence[int | str]]
    mend: Callable[[Sequence[Any]], None] | None = None
    advice: Callable[[], str] | None = None


def parts(ids: Sequence[Any]) -> Iterator[Sequence[Any]]:
    """So many at a time as are compared in one snapshot."""
    for start in range(0, len(ids), AT_ONCE):
        yield ids[start : start + AT_ONCE]


def in_parts(ids: Sequence[int], query: Callable[[Sequence[int]], list[int]]) -> list[int]:
    """What a query finds among ids, asked for some at a time."""
    return [found for part in parts(ids) for found in query(part)]


def record(action: str, service: str, subject: str, count: int) -> None:
    """Leave a line in the audit log of what a repair did."""
    audit_log.record(f"repair: {action}", service=service, subject=subject, count=count, operator_uid=os.getuid())
