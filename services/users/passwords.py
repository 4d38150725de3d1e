"""Passwords: hashed with bcrypt, on threads of their own.

bcrypt reads 72 bytes at most. So that all of a long password counts it is hashed first, with HMAC-SHA-256 keyed by the
salt: a plain pre-hash would let hashes stolen elsewhere be tried without knowing their passwords.
"""

from __future__ import annotations

import asyncio
import base64
import concurrent.futures
import hashlib
import hmac
import os
import unicodedata

import bcrypt

# "$2b$12$" and 22 characters of salt.
_SALT_SIZE = 29


class Passwords:
    """Hashes and checks passwords.

    Args:
        cost: Of new hashes, 4 to 16; each step doubles their time.
    """

    def __init__(self, cost: int) -> None:
        self._cost = cost
        self._nobody = _hash("nobody has this password", bcrypt.gensalt(cost))
        # bcrypt releases the GIL. More threads than cores would only slow the calls beside it.
        self._threads = concurrent.futures.ThreadPoolExecutor(os.cpu_count() or 1, thread_name_prefix="bcrypt")

    async def hash(self, password: str) -> bytes:
        """The hash to store of a new password."""
        return await self._run(password, bcrypt.gensalt(self._cost))

    async def check(self, password: str, stored: bytes | None) -> bool:
        """Whether a password is the one whose hash was stored. It takes as long if there is none."""
        salt = (stored or self._nobody)[:_SALT_SIZE]
        found = await self._run(password, salt)
        return hmac.compare_digest(found, stored or b"")

    async def _run(self, password: str, salt: bytes) -> bytes:
        return await asyncio.get_running_loop().run_in_executor(self._threads, _hash, password, salt)


def _hash(password: str, salt: bytes) -> bytes:
    # The same characters can be typed as different code points (NIST SP 800-63B-4, 3.1.1.2).
    normalized = unicodedata.normalize("NFKC", password).encode()
    digest = hmac.digest(salt, normalized, hashlib.sha256)
    return bcrypt.hashpw(base64.b64encode(digest), salt)
