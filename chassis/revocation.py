"""Which sessions have ended before their access tokens expired."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Iterable

from chassis import errors
from chassis.errors import Reason

# A token says nothing against itself: what is not heard of for this long may be revoked.
_OLDEST_NEWS_SECONDS = 30.0


class Revocations:
    """The sessions that have ended, each remembered until its last access token has expired.

    Args:
        age: Answers how many seconds ago it was last heard which sessions ended.
        remember_seconds: The longest life of an access token, and what the clocks of two machines may differ.
    """

    def __init__(self, age: Callable[[], float], remember_seconds: float) -> None:
        self._age = age
        self._remember_seconds = remember_seconds
        # In the order in which they came: finding the first of a plain dict takes long after many were deleted.
        self._forget_at: OrderedDict[str, float] = OrderedDict()

    def __contains__(self, session_id: str) -> bool:
        return session_id in self._forget_at

    def add(self, session_ids: Iterable[str]) -> None:
        """Refuse the tokens of sessions from now on."""
        now = time.monotonic()
        for session_id in session_ids:
            self._forget_at[session_id] = now + self._remember_seconds
            self._forget_at.move_to_end(session_id)
        while self._forget_at and next(iter(self._forget_at.values())) <= now:
            self._forget_at.popitem(last=False)

    def require_news(self) -> None:
        """Refuse to act on a token if it may have been revoked for long.

        Raises:
            Unavailable: it was not heard for 30 seconds which sessions ended.
        """
        if self._age() > _OLDEST_NEWS_SECONDS:
            text = (
                "which sessions have ended is not known at the moment, so that no token may change anything; try again"
            )
            raise errors.Unavailable(Reason.REASON_REVOCATIONS_UNKNOWN, text, retry_after=5.0)
