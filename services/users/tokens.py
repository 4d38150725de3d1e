"""Access tokens and the keys that sign them (RFC 9068, RFC 8037)."""

from __future__ import annotations

import hashlib
import secrets
import time
from typing import NamedTuple

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519

from chassis import clock, identity
from chassis.query import compiled, param
from chassis.store import Database
from services.users.accounts import Account
from services.users.models import SigningKey

LIFETIME_SECONDS = 15 * 60
# Who asked for the token: the suite's own login, the only client there is.
_CLIENT_ID = "insta"

_newest_first = SigningKey.select(SigningKey.kid, SigningKey.private_key).order_by(SigningKey.create_time.desc())
_keys = compiled(_newest_first)
_insert = compiled(
    SigningKey.insert(kid=param("kid"), private_key=param("private_key"), create_time=param("create_time"))
)


class AccessToken(NamedTuple):
    """A signed token and when it expires, in microseconds since 1970."""

    text: str
    expire_time: int


class Key(NamedTuple):
    """A key that signs tokens."""

    kid: str
    private: ed25519.Ed25519PrivateKey

    @property
    def public_bytes(self) -> bytes:
        """The 32 bytes of the public key."""
        return self.private.public_key().public_bytes_raw()


def ensure_key(db: Database) -> None:
    """Make the first signing key, if there is none. Runs in a write."""
    if _keys.all(db):
        return
    private = ed25519.Ed25519PrivateKey.generate()
    raw = private.private_bytes(
        serialization.Encoding.Raw, serialization.PrivateFormat.Raw, serialization.NoEncryption()
    )
    kid = hashlib.sha256(private.public_key().public_bytes_raw()).hexdigest()[:16]
    _insert.run(db, kid=kid, private_key=raw, create_time=clock.now())


def keys(db: Database) -> list[Key]:
    """The signing keys, the newest first: it signs."""
    return [Key(kid, ed25519.Ed25519PrivateKey.from_private_bytes(bytes(raw))) for kid, raw in _keys.all(db)]


def issue(key: Key, account: Account, lifetime: int = LIFETIME_SECONDS) -> AccessToken:
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
