"""What a change rests on and only other services know: that its caller exists, and whatever it refers to.

They are asked before the change. What ends afterwards is heard of in their event logs and leaves a tombstone, which the
change finds in its transaction. But who compares instead of reading a log (`consumer.py`) passes events over, and
leaves tombstones for nothing but what it has rows of. So a change looks in its transaction whether a comparison began
since before it asked: what the answers said may have ended unheard then, and it asks again. That costs each change one
point read.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from chassis import errors, identity
from chassis.call import caller
from chassis.consumer import comparisons
from chassis.store import Database, Store

Result = TypeVar("Result")

_ATTEMPTS = 3
_CALLERS_REMEMBERED = 50_000


class _Compared(Exception):
    """A comparison may have begun after the questions were asked. So many have begun by now."""

    def __init__(self, count: int) -> None:
        self.count = count


class Premises:
    """Makes changes whose premises hold.

    Args:
        store: Of a service that reads the logs of others.
        missing_users: Asks the users service which of some users do not exist.
    """

    def __init__(self, store: Store, missing_users: Callable[[Sequence[int]], Awaitable[Sequence[int]]]) -> None:
        self._store = store
        self._missing_users = missing_users
        # So many comparisons had begun when that was last looked at. Where there are more by now, a change finds out.
        self._compared = store.read_now(comparisons)
        # Callers of whom it is known that they existed after the last of these began.
        self._existing: set[int] = set()

    async def write(self, ask: Callable[[], Awaitable[object]] | None, change: Callable[[Database], Result]) -> Result:
        """Run a change once others were asked; returns after its commit, as `Store.write` does.

        Args:
            ask: Asks them, and raises if the answers forbid the change.

        Raises:
            Unauthenticated: the caller was deleted.
            Unavailable: one comparison after the other began meanwhile.
        """
        for _ in range(_ATTEMPTS):
            compared = self._compared
            await self._require_caller(compared)
            if ask is not None:
                await ask()
            try:
                return await self._store.write(_unless_compared, compared, change)
            except _Compared as found:
                self._compared = found.count
                self._existing.clear()
        raise errors.unavailable()

    async def _require_caller(self, compared: int) -> None:
        """Make sure that the caller existed after the last comparison began. Their token may be older."""
        if not compared:
            # Everybody who is gone has a tombstone.
            return
        user_id = caller().user_id
        if user_id in self._existing:
            return
        if await self._missing_users([user_id]):
            raise identity.account_deleted()
        if compared != self._compared:
            return
        if len(self._existing) >= _CALLERS_REMEMBERED:
            self._existing.clear()
        self._existing.add(user_id)


def _unless_compared(db: Database, compared: int, change: Callable[[Database], Result]) -> Result:
    if (count := comparisons(db)) != compared:
        raise _Compared(count)
    return change(db)
