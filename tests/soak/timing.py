"""How well one can tell two kinds of calls apart by the time that they take."""

from __future__ import annotations

import bisect
import random
import time
from collections.abc import Sequence

import grpc

from insta.gateway.v1 import accounts_pb2
from tests.people import People, failure


async def answer_times(people: People, *names: Sequence[str]) -> list[list[float]]:
    """The seconds that logins with a wrong password take, for each list of names.

    They are made one by one, in a random order. All must get the same answer.
    """
    seconds: list[list[float]] = [[] for _ in names]
    answers = set()
    order = [(number, name) for number, several in enumerate(names) for name in several]
    random.Random(len(order)).shuffle(order)
    for number, name in order:
        request = accounts_pb2.LoginRequest(login=name, password="a wrong password")
        begun = time.perf_counter()
        failed = await failure(people.stranger.accounts.Login(request))
        seconds[number].append(time.perf_counter() - begun)
        answers.add((failed.code, failed.reason, failed.text, failed.retry_after))
    assert len(answers) == 1
    assert next(iter(answers))[:2] == (grpc.StatusCode.UNAUTHENTICATED, "WRONG_CREDENTIALS")
    return seconds


def chance_to_tell(first: Sequence[float], second: Sequence[float]) -> float:
    """The chance that one of the first took longer than one of the second: 1/2 if nothing tells them apart.

    It is the area under the ROC curve of who guesses by the time, and the statistic of Mann and Whitney over its range.
    """
    ordered = sorted(second)
    shorter = sum(bisect.bisect_left(ordered, each) + bisect.bisect_right(ordered, each) for each in first)
    return shorter / (2 * len(first) * len(second))
