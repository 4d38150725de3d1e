"""How much one caller may change in a minute, in this process: a token bucket each (GCRA).

Not by a library: the storage in memory of `limits` sweeps over all callers every 10 milliseconds while calls come in.
"""

from __future__ import annotations

import time

from chassis import errors
from chassis.call import Caller
from chassis.errors import Reason

_WINDOW_SECONDS = 60.0
_ROUNDING_SECONDS = 1e-6
# Above it, those who called nothing for a minute are forgotten.
_REMEMBERED_CALLERS = 100_000


class MutationLimit:
    """Lets each caller make so many calls a minute that may change something, all at once or one by one.

    Args:
        per_minute: 0 lets everybody make any number.
    """

    def __init__(self, per_minute: int) -> None:
        self._per_minute = per_minute
        self._calm_again: dict[int, float] = {}

    def require(self, caller: Caller) -> None:
        """Count a call.

        Raises:
            ResourceExhausted: the caller made too many in the last minute.
        """
        if not self._per_minute:
            return
        now = time.monotonic()
        calm_again = max(self._calm_again.get(caller.user_id, now), now) + _WINDOW_SECONDS / self._per_minute
        wait = calm_again - now - _WINDOW_SECONDS
        if wait > _ROUNDING_SECONDS:
            text = f"one account may make {self._per_minute} changes in a minute; try again in {wait:.2f} seconds"
            raise errors.ResourceExhausted(Reason.REASON_RATE_LIMITED, text, retry_after=wait)
        self._calm_again[caller.user_id] = calm_again
        if len(self._calm_again) > _REMEMBERED_CALLERS:
            self._calm_again = {who: until for who, until in self._calm_again.items() if until > now}
