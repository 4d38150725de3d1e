"""Access tokens (RFC 9068)."""

from __future__ import annotations

import secrets
from typing import NamedTuple

import jwt

from chassis import clock, identity
from services.users.accounts import Account
from services.users.keys import Key
from services.users.sessions import SessionRow

# Who asked for the token: the suite's own login, the only client there is.
_CLIENT_ID = "insta"


class AccessToken(NamedTuple):
    """A signed token and when it expires, in microseconds since 1970."""

    text: str
    expire_time: int


def issue(key: Key, account: Account, session: SessionRow) -> AccessToken:
    """A token that proves who its holder is, and what they may do, for 15 minutes or until its session expires."""
    now = clock.now() // 1_000_000
    expire_time = min(now + identity.LIFETIME_SECONDS, session.expire_time // 1_000_000)
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
        "sid": session.id,
        "jti": secrets.token_urlsafe(12),
        "iat": now,
        "exp": expire_time,
        "roles": roles,
    }
    headers = {"typ": identity.TYPE, "kid": key.kid}
    text = jwt.encode(claims, key.private, algorithm=identity.ALGORITHM, headers=headers)
    return AccessToken(text, expire_time * 1_000_000)
