"""Whether somebody knows a password, and how often they may try."""

from __future__ import annotations

from chassis import errors
from chassis.store import Store
from services.users import throttle
from services.users.passwords import Passwords
from services.users.throttle import Subject


class PasswordCheck:
    """Checks passwords, and lets those wait who were wrong too often.

    Args:
        throttled: Whether anybody has to wait.
    """

    def __init__(self, store: Store, passwords: Passwords, throttled: bool) -> None:
        self._store = store
        self._passwords = passwords
        self._throttled = throttled

    async def matches(self, password: str, stored: bytes | None, owner: Subject, *others: Subject) -> bool:
        """Whether a password is the one whose hash was stored. It takes as long if there is none.

        Args:
            owner: Whose password it is. Once it was right, their failures are forgiven.
            others: Who must not fail too often either, whoever's password it is.

        Raises:
            ResourceExhausted: somebody has to wait, or too many passwords are being checked.
        """
        if not self._throttled:
            return await self._passwords.check(password, stored)
        await self._store.write(throttle.begin, [owner, *others])
        try:
            correct = await self._passwords.check(password, stored)
        except errors.ResourceExhausted:
            await self._store.write(throttle.undo, [owner, *others])
            raise
        if correct:
            await self._store.write(throttle.succeed, owner, others)
        return correct
