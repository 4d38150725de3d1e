"""Whether somebody knows the password of an account, and how often they may try."""

from __future__ import annotations

import asyncio
import math

from chassis import audit, errors
from chassis.call import lasting
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

    async def matches(
        self, purpose: str, password: str, credentials: Credentials | None, owner: Subject, *others: Subject
    ) -> bool:
        """Whether a password is that of an account. It takes as long if there is no account.

        Args:
            purpose: What it is to allow, as the audit log tells of failures.
            owner: Whose failures are forgiven once the password was right.
            others: Who must not fail too often either, whoever's password it is.

        Raises:
            ResourceExhausted: somebody has to wait, or too many passwords are being checked.
        """
        # Who hangs up has tried all the same: it is counted, forgiven if it was right, and stands in the audit log.
        check = self._check(purpose, password, credentials, owner, *others)
        checking = asyncio.get_running_loop().create_task(check, context=lasting())
        checking.add_done_callback(_seen)
        return await asyncio.shield(checking)

    async def _check(
        self, purpose: str, password: str, credentials: Credentials | None, owner: Subject, *others: Subject
    ) -> bool:
        user_id = None if credentials is None else credentials.user_id
        self._passwords.require_room()
        if self._throttled and (wait := await self._store.write(throttle.begin, [owner, *others])):
            audit.record(f"{purpose} throttled", user_id=user_id)
            text = f"too many attempts, wrong or not answered yet; try again in {math.ceil(wait)} seconds"
            raise errors.ResourceExhausted(Reason.REASON_TOO_MANY_FAILURES, text, retry_after=wait)
        try:
            correct = await self._passwords.check(password, None if credentials is None else credentials.password_hash)
        except errors.ResourceExhausted:
            if self._throttled:
                await self._store.write(throttle.undo, [owner, *others])
            raise
        if not correct:
            audit.record(f"{purpose} failed", user_id=user_id)
        elif self._throttled:
            await self._store.write(throttle.succeed, owner, others)
        return correct


def _seen(checking: asyncio.Future[bool]) -> None:
    """Nobody may be left who waits for it: what it raised is not to be reported as forgotten."""
    if not checking.cancelled():
        checking.exception()
