"""Which calls are let in. Refusing the rest at once keeps the accepted ones fast."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from chassis import errors
from chassis.errors import Reason


class Admission:
    """Lets calls in, over all methods that share this.

    Calls under way cost memory, also while they wait for something. Those that have not begun wait for the processor:
    how long, each `Acceptor` measures.

    Args:
        limit: How many calls may be under way at once.
        within: Whose calls they are as well.
        refusal: Made for who is not let in, of a sentence that says why.
    """

    def __init__(
        self,
        limit: float,
        within: Admission | None = None,
        refusal: Callable[[str], errors.Error] | None = None,
    ) -> None:
        self.limit = limit
        self.under_way = 0
        self._within = within
        self._refusal = refusal or overloaded

    def enter(self) -> None:
        """Let one more call in, which must leave again.

        Raises:
            Error: there are too many already; ResourceExhausted, if there is no refusal of its own.
        """
        if self.under_way >= self.limit:
            raise self._refusal(f"{self.limit} calls are under way, which is all that this server admits")
        if self._within is not None:
            self._within.enter()
        self.under_way += 1

    def leave(self) -> None:
        self.under_way -= 1
        if self._within is not None:
            self._within.leave()


class PerPerson:
    """Lets each person do so much at a time of what lasts.

    Args:
        refusal: Made for who does too much.
    """

    def __init__(self, limit: int, refusal: Callable[[], errors.ResourceExhausted]) -> None:
        self._limit = limit
        self._refusal = refusal
        self._under_way: Counter[int] = Counter()

    @contextmanager
    def entered(self, user_id: int) -> Iterator[None]:
        """Let somebody begin.

        Raises:
            ResourceExhausted: too much of theirs is under way.
        """
        if self._under_way[user_id] >= self._limit:
            raise self._refusal()
        self._under_way[user_id] += 1
        try:
            yield
        finally:
            self._under_way[user_id] -= 1
            if not self._under_way[user_id]:
                del self._under_way[user_id]


def overloaded(why: str) -> errors.ResourceExhausted:
    """The answer to a call that is not let in."""
    return errors.ResourceExhausted(Reason.REASON_OVERLOADED, f"{why}; try again", retry_after=0.5)
