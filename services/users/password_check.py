"""Whether somebody knows the password of an account, and how often they may try."""

from __future__ import annotations

import math

from chassis import audit, errors
from chassis.errors import Reason
from chassis.store import Store
from services.users import throttle
from services.users.accounts import Credentials
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

    async def matches(self, password: str, credentials: Credentials | None, owner: Subject, *others: Subject) -> bool:
        """Whether a password is that of an account. It takes as long if there is no account.

        Args:
            owner: Whose failures are forgiven once the password was right.
            others: Who must not fail too often either, whoever's password it is.

        Raises:
            ResourceExhausted: somebody has to wait, or too many passwords are being checked.
        """
        stored = None if credentials is None else credentials.password_hash
        if not self._throttled:
            return await self._passwords.check(password, stored)
        if wait := await self._store.write(throttle.begin, [owner, *others]):
            audit.record("password not looked at", user_id=credentials and credentials.user_id, wait_seconds=wait)
            text = f"too many wrong passwords of late; try again in {math.ceil(wait)} seconds"
            raise errors.ResourceExhausted(Reason.REASON_TOO_MANY_FAILURES, text, retry_after=wait)
        try:
            correct = await self._passwords.check(password, stored)
        except errors.ResourceExhausted:
            await self._store.write(throttle.undo, [owner, *others])
            raise
        if correct:
            await self._store.write(throttle.succeed, owner, others)
        return correct
