"""Who issues access tokens in tests of what verifies them: keys of its own, and claims that can be wrong."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ed25519

from chassis import identity
from chassis.identity import Verifier
from chassis.revocation import Revocations


class Issuer:
    """Issues access tokens, and publishes the keys that verify them.

    Attributes:
        fetches: How often the keys were asked for.
        failure: What asking for them raises, as long as it is set.
        revocations: The sessions that have ended.
        silence: Seconds since it was last heard which sessions have ended.
    """

    def __init__(self) -> None:
        self.keys = {"test-key": ed25519.Ed25519PrivateKey.generate()}
        self.fetches = 0
        self.failure: Exception | None = None
        self.silence = 0.0
        self.revocations = Revocations(lambda: self.silence, remember_seconds=60)

    def verifier(self) -> Verifier:
        """A new verifier of the tokens."""
        return Verifier(self.published, self.revocations)

    async def published(self) -> Mapping[str, bytes]:
        """The public keys by their names, as a verifier fetches them."""
        self.fetches += 1
        if self.failure is not None:
            raise self.failure
        return {kid: key.public_key().public_bytes_raw() for kid, key in self.keys.items()}

    def claims(self, user_id: int = 7, **changes: Any) -> dict[str, Any]:
        """The claims of a good token with some changes; None removes one."""
        now = int(time.time())
        claims = {
            "iss": identity.ISSUER,
            "aud": identity.AUDIENCE,
            "sub": str(user_id),
            "client_id": "insta",
            "sid": "session",
            "jti": "token",
            "iat": now,
            "exp": now + 900,
            "roles": [],
            **changes,
        }
        return {name: value for name, value in claims.items() if value is not None}

    def token(
        self,
        claims: Mapping[str, Any] | None = None,
        *,
        key: Any = None,
        algorithm: str | None = identity.ALGORITHM,
        **header: Any,
    ) -> str:
        """A signed token; a good one, unless told otherwise."""
        names = {"typ": identity.TYPE, "kid": next(iter(self.keys)), **header}
        signing = next(iter(self.keys.values())) if key is None else key
        return jwt.encode(dict(self.claims() if claims is None else claims), signing, algorithm, names)

    def authorization(self, user_id: int = 7, *roles: str) -> str:
        """The metadata of that name for calls of a user."""
        return f"Bearer {self.token(self.claims(user_id, roles=list(roles)))}"
