"""Access tokens: JWTs of the users service (RFC 9068, EdDSA), verified here by whoever holds its public keys."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Awaitable, Callable, Mapping

import grpc
import jwt
from cryptography.hazmat.primitives.asymmetric import ed25519

from chassis import errors, logs
from chassis.call import Caller, lasting
from chassis.errors import Reason
from chassis.revocation import Revocations

ALGORITHM = "EdDSA"
TYPE = "at+jwt"
ISSUER = "insta"
AUDIENCE = "insta"
LIFETIME_SECONDS = 15 * 60
REQUIRED_CLAIMS = ["iss", "aud", "sub", "client_id", "sid", "jti", "iat", "exp"]
ROLE_STAFF = "staff"
ROLE_SUPERUSER = "superuser"

_USER_ID = re.compile("[1-9][0-9]{0,18}")
_LARGEST_USER_ID = 2**63 - 1
# Three parts in base64url without padding (RFC 7515): a token has one spelling. PyJWT would let padding pass, and JSON
# that is no UTF-8 (RFC 8725, 3.7): "eyJ" is the beginning of an object with a name, in UTF-8.
_TOKEN = re.compile(r"eyJ[A-Za-z0-9_-]+\.eyJ[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+")
_TOKEN_LIMIT = 4096
# The clocks of two machines differ: a token may seem to come from a future as near as this.
LEEWAY_SECONDS = 5
_REMEMBERED_TOKENS = 10_000
_SECONDS_BETWEEN_FETCHES = 10.0
_SECONDS_AFTER_FAILURE = 1.0

log = logs.get(__name__)

FetchKeys = Callable[[], Awaitable[Mapping[str, bytes]]]


class Verifier:
    """Verifies access tokens, and remembers those that it verified until they expire.

    Args:
        fetch_keys: Answers the public keys of the users service: their 32 bytes by `kid`.
        revocations: The sessions whose tokens are refused before they expire.
    """

    def __init__(self, fetch_keys: FetchKeys, revocations: Revocations) -> None:
        self._fetch_keys = fetch_keys
        self._revocations = revocations
        self._keys: dict[str, ed25519.Ed25519PublicKey] = {}
        self._fetching = asyncio.Lock()
        self._next_fetch = 0.0
        self._published = False
        self._verified: dict[str, tuple[Caller, float]] = {}

    async def verify(self, authorization: str) -> Caller:
        """Who holds the token in the metadata `authorization: Bearer <token>`.

        Raises:
            Unauthenticated: there is no token, or it proves nothing, or its session has ended.
            Unavailable: the public keys could not be fetched.
        """
        caller = self._remembered(authorization) or await self._verify_anew(authorization)
        if caller.session_id in self._revocations:
            raise session_ended()
        return caller

    def require_news(self) -> None:
        """Refuse to change anything on the word of a token while it is not known which were revoked.

        Raises:
            Unavailable: it is not.
        """
        self._revocations.require_news()

    def _remembered(self, authorization: str) -> Caller | None:
        remembered = self._verified.get(authorization)
        if remembered is None:
            return None
        caller, expire_time = remembered
        if time.time() < expire_time:
            return caller
        del self._verified[authorization]
        return None

    async def _verify_anew(self, authorization: str) -> Caller:
        caller, expire_time = await self._verify(_token(authorization))
        if len(self._verified) >= _REMEMBERED_TOKENS:
            del self._verified[next(iter(self._verified))]
        self._verified[authorization] = caller, expire_time
        return caller

    async def _verify(self, token: str) -> tuple[Caller, float]:
        try:
            header = jwt.get_unverified_header(token)
            kid = header.get("kid")
            if header.get("typ") != TYPE or header.get("alg") != ALGORITHM or not isinstance(kid, str):
                raise _invalid()
            key = self._keys.get(kid) or await self._fetch(kid)
            claims = jwt.decode(
                token,
                key,
                algorithms=[ALGORITHM],
                audience=AUDIENCE,
                issuer=ISSUER,
                options={"require": REQUIRED_CLAIMS, "strict_aud": True, "verify_iat": False},
            )
            return _caller(claims), _expire_time(claims)
        except jwt.ExpiredSignatureError:
            text = "the access token has expired; refresh the session, or log in again"
            raise errors.Unauthenticated(Reason.REASON_TOKEN_EXPIRED, text) from None
        except (jwt.InvalidTokenError, ValueError, TypeError, KeyError):
            raise _invalid() from None

    async def _fetch(self, kid: str) -> ed25519.Ed25519PublicKey:
        """The key named `kid`, after a look at what the users service publishes now."""
        async with self._fetching:
            if time.monotonic() >= self._next_fetch:
                # For all who wait for keys: it does not end with the call that came first.
                fetch = asyncio.get_running_loop().create_task(self._fetch_published(), context=lasting())
                await asyncio.shield(fetch)
        key = self._keys.get(kid)
        if key is None:
            raise _invalid() if self._published else errors.unavailable()
        return key

    async def _fetch_published(self) -> None:
        try:
            published = await self._fetch_keys()
        except grpc.aio.AioRpcError as failure:
            log.warning("the keys could not be fetched", error=repr(failure))
            self._published = False
            # The calls that waited meanwhile do not each try it again.
            self._next_fetch = time.monotonic() + _SECONDS_AFTER_FAILURE
        else:
            self._keys = {name: ed25519.Ed25519PublicKey.from_public_bytes(key) for name, key in published.items()}
            self._published = True
            self._next_fetch = time.monotonic() + _SECONDS_BETWEEN_FETCHES


def _token(authorization: str) -> str:
    if not authorization:
        text = "this method needs an access token: send the metadata 'authorization: Bearer <access_token>'"
        raise errors.Unauthenticated(Reason.REASON_TOKEN_MISSING, text)
    scheme, _, token = authorization.partition(" ")
    if scheme.lower() != "bearer" or len(token) > _TOKEN_LIMIT or not _TOKEN.fullmatch(token):
        raise _invalid()
    return token


def _caller(claims: Mapping[str, object]) -> Caller:
    user_id, session_id, roles = str(claims["sub"]), claims["sid"], claims.get("roles", [])
    if not _USER_ID.fullmatch(user_id) or int(user_id) > _LARGEST_USER_ID:
        raise _invalid()
    if not isinstance(session_id, str) or not session_id:
        raise _invalid()
    if not isinstance(roles, list) or not all(isinstance(role, str) for role in roles):
        raise _invalid()
    superuser = ROLE_SUPERUSER in roles
    return Caller(int(user_id), staff=superuser or ROLE_STAFF in roles, superuser=superuser, session_id=session_id)


def _expire_time(claims: Mapping[str, object]) -> float:
    issued, expires = claims["iat"], claims["exp"]
    # PyJWT would take text and fractions for times, and NaN for one that has passed.
    if type(issued) is not int or type(expires) is not int:
        raise _invalid()
    # No token is issued for longer, and for no longer is it remembered that its session has ended.
    if issued > time.time() + LEEWAY_SECONDS or expires - issued > LIFETIME_SECONDS:
        raise _invalid()
    return float(expires)


def _invalid() -> errors.Unauthenticated:
    text = "the access token is not valid here; log in, and send 'authorization: Bearer <access_token>'"
    return errors.Unauthenticated(Reason.REASON_TOKEN_INVALID, text)


def session_ended() -> errors.Unauthenticated:
    """The session that a token belongs to is no more."""
    text = "the session of this access token was ended; log in again"
    return errors.Unauthenticated(Reason.REASON_SESSION_ENDED, text)


def account_deleted() -> errors.Unauthenticated:
    """The account that a token was issued to is no more."""
    return errors.Unauthenticated(Reason.REASON_TOKEN_INVALID, "the account of this access token was deleted")


def account_inactive() -> errors.PermissionDenied:
    """The account that a token was issued to, or that somebody logs in to, is deactivated."""
    text = "this account is deactivated; only staff can activate it again"
    return errors.PermissionDenied(Reason.REASON_ACCOUNT_INACTIVE, text)
