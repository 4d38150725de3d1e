"""Signing keys (Ed25519, RFC 8037): published before they sign, and until the tokens that they signed have expired.

A private key leaves neither this service nor its database, whose file only its owner can read.
"""

from __future__ import annotations

import hashlib
from typing import NamedTuple

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519

from chassis import clock, identity
from chassis.query import compiled, param
from chassis.store import Database
from services.users.models import SigningKey

# Verifiers look for an unknown key every 10 seconds at most; by then all of them can know a new one.
LEAD_MICROS = 20 * 1_000_000
# Clocks differ, and a token is signed a moment after its key was chosen.
_RETIRE_AFTER_MICROS = (identity.LIFETIME_SECONDS + 60) * 1_000_000


class Key(NamedTuple):
    """A key that signs tokens from `sign_time` (microseconds since 1970) until the next one does."""

    kid: str
    private_bytes: bytes
    sign_time: int

    @property
    def private(self) -> ed25519.Ed25519PrivateKey:
        return ed25519.Ed25519PrivateKey.from_private_bytes(bytes(self.private_bytes))

    @property
    def public_bytes(self) -> bytes:
        """The 32 bytes of the public key."""
        return self.private.public_key().public_bytes_raw()


_newest_first = compiled(
    SigningKey.select(SigningKey.kid, SigningKey.private_key, SigningKey.sign_time).order_by(
        SigningKey.sign_time.desc()
    ),
    row=Key,
)
_insert = compiled(SigningKey.insert(kid=param("kid"), private_key=param("private_key"), sign_time=param("sign_time")))
_delete = compiled(SigningKey.delete().where(SigningKey.kid == param("kid")))
_delete_all = compiled(SigningKey.delete())


def ensure(db: Database) -> None:
    """Make the first key, if there is none; it signs at once."""
    if not _newest_first.all(db):
        _add(db, clock.now())


def rotate(db: Database) -> Key:
    """Publish a new key, which signs after `LEAD_MICROS`, and forget those whose tokens have expired."""
    ensure(db)
    kept = {key.kid for key in published(db)}
    for key in _newest_first.all(db):
        if key.kid not in kept:
            _delete.run(db, kid=key.kid)
    return _add(db, clock.now() + LEAD_MICROS)


def replace(db: Database) -> Key:
    """Make a new key that signs at once, and let no token be valid that another one signed. Runs while nobody verifies
    tokens."""
    _delete_all.run(db)
    return _add(db, clock.now())


def signer(db: Database) -> Key:
    """The key that signs now."""
    now = clock.now()
    return next(key for key in _newest_first.all(db) if key.sign_time <= now)


def published(db: Database) -> list[Key]:
    """The keys that verifiers may meet: those to come, the one that signs, and those of tokens that are still valid."""
    now = clock.now()
    keys = []
    for key in _newest_first.all(db):
        keys.append(key)
        if key.sign_time + _RETIRE_AFTER_MICROS <= now:
            # All that older keys signed has expired since this one took over.
            break
    return keys


def _add(db: Database, sign_time: int) -> Key:
    private = ed25519.Ed25519PrivateKey.generate()
    raw = private.private_bytes(
        serialization.Encoding.Raw, serialization.PrivateFormat.Raw, serialization.NoEncryption()
    )
    kid = hashlib.sha256(private.public_key().public_bytes_raw()).hexdigest()[:16]
    _insert.run(db, kid=kid, private_key=raw, sign_time=sign_time)
    return Key(kid, raw, sign_time)
