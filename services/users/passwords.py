"""Passwords: hashed with bcrypt, on threads of their own with a short queue, and not among the most common ones.

bcrypt reads 72 bytes at most. So that all of a long password counts it is hashed first, with HMAC-SHA-256 keyed by the
salt: a plain pre-hash would let hashes stolen elsewhere be tried without knowing their passwords.
"""

from __future__ import annotations

import asyncio
import base64
import concurrent.futures
import functools
import hashlib
import hmac
import os
import threading
import unicodedata

import bcrypt

from chassis import errors
from chassis.errors import Reason

# "$2b$12$" and 22 characters of salt.
_SALT_SIZE = 29
# What waits for a thread longer than this many others is better told to come back.
_QUEUE_PER_THREAD = 8
# Hashing must not take the processor from the calls that wait for nothing else.
_NICENESS = 10


class Passwords:
    """Hashes and checks passwords.

    Args:
        cost: Of new hashes, 4 to 16; each step doubles their time.
    """

    def __init__(self, cost: int) -> None:
        self._cost = cost
        self._most_common = _most_common()
        self._nobody = _hash("nobody has this password", bcrypt.gensalt(cost))
        threads = os.cpu_count() or 1
        self._limit = threads * (1 + _QUEUE_PER_THREAD)
        self._under_way = 0
        # bcrypt releases the GIL. More threads than cores would only slow the calls beside it.
        self._threads = concurrent.futures.ThreadPoolExecutor(threads, "bcrypt", initializer=_step_back)

    async def hash(self, password: str, field: str = "password") -> bytes:
        """The hash to store of a new password.

        Args:
            field: Of the request, in which it came.

        Raises:
            InvalidArgument: it is one of the most common passwords.
            ResourceExhausted: too many passwords are being hashed.
        """
        if password.lower() in self._most_common:
            description = "is one of the most common passwords, which attackers try first; choose another"
            raise errors.invalid_field(field, description, Reason.REASON_COMMON_PASSWORD)
        return await self._run(password, bcrypt.gensalt(self._cost))

    async def check(self, password: str, stored: bytes | None) -> bool:
        """Whether a password is the one whose hash was stored. It takes as long if there is none.

        Raises:
            ResourceExhausted: too many passwords are being hashed.
        """
        salt = (stored or self._nobody)[:_SALT_SIZE]
        found = await self._run(password, salt)
        return hmac.compare_digest(found, stored or b"")

    async def strengthened(self, password: str, stored: bytes) -> bytes | None:
        """A hash to store in place of one that costs less than new ones do. None: it costs as much, or all are busy."""
        if int(stored.split(b"$")[2]) >= self._cost or self._under_way >= self._limit:
            return None
        return await self._run(password, bcrypt.gensalt(self._cost))

    def require_room(self) -> None:
        """Refuse to begin what would wait for long.

        Raises:
            ResourceExhausted: too many passwords are being hashed.
        """
        if self._under_way >= self._limit:
            text = "too many passwords are being checked; try again"
            raise errors.ResourceExhausted(Reason.REASON_OVERLOADED, text, retry_after=1.0)

    async def _run(self, password: str, salt: bytes) -> bytes:
        self.require_room()
        self._under_way += 1
        hashing = asyncio.get_running_loop().run_in_executor(self._threads, _hash, password, salt)
        # Not where the call ends: a thread goes on with what its caller no longer waits for.
        hashing.add_done_callback(self._done)
        return await asyncio.shield(hashing)

    def _done(self, hashing: asyncio.Future[bytes]) -> None:
        self._under_way -= 1


@functools.cache
def _most_common() -> frozenset[str]:
    # Not with this module: who never makes a password need not read the list.
    from zxcvbn import frequency_lists

    return frozenset(frequency_lists.FREQUENCY_LISTS["passwords"])


def _step_back() -> None:
    os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICENESS)


def _hash(password: str, salt: bytes) -> bytes:
    # The same characters can be typed as different code points (NIST SP 800-63B-4, 3.1.1.2).
    normalized = unicodedata.normalize("NFC", password).encode()
    digest = hmac.digest(salt, normalized, hashlib.sha256)
    return bcrypt.hashpw(base64.b64encode(digest), salt)
