"""Access tokens (RFC 9068)."""

from __future__ import annotations

import secrets
import time
from typing import NamedTuple

import jwt

from chassis import identity
from services.users.accounts import Account
from services.users.keys import Key

# Who asked for the token: the suite's own login, the only client there is.
_CLIENT_ID = "insta"


class AccessToken(NamedTuple):
    """A signed token and when it expires, in microseconds since 1970."""

    text: str
    expire_time: int


def issue(key: Key, account: Account, lifetime: int = identity.LIFETIME_SECONDS) -> AccessToken:
    """A token that proves who its holder is, and what they may do, for `lifetime` seconds."""
    now = int(time.time())
    roles = [
        role
        for role, held in ((identity.ROLE_STAFF, account.staff), (identity.ROLE_SUPERUSER, account.superuser))
        if held
    ]
    claims = {
        "iss": identity.ISSUER,
        "aud": identity.AUDIENCE,
        "sub": str(account.id),
        "client_id": _CLIENT_ID,
        "sid": secrets.token_urlsafe(12),
        "jti": secrets.token_urlsafe(12),
        "iat": now,
        "exp": now + lifetime,
        "roles": roles,
    }
    headers = {"typ": identity.TYPE, "kid": key.kid}
    text = jwt.encode(claims, key.private, algorithm=identity.ALGORITHM, headers=headers)
    return AccessToken(text, (now + lifetime) * 1_000_000)
