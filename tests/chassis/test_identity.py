"""Access tokens: what proves who somebody is, and that nothing else does."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import random
import time
from typing import Any

import grpc
import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519

from chassis import identity
from chassis.call import Caller
from chassis.errors import Unauthenticated, Unavailable
from chassis.identity import Verifier
from tests.chassis.issuer import Issuer


@pytest.fixture
def verifier(issuer: Issuer) -> Verifier:
    return issuer.verifier()


def holder(user_id: int, **roles: bool) -> Caller:
    """Who holds a token of the issuer."""
    return Caller(user_id, session_id="session", **roles)


async def refused(verifier: Verifier, authorization: str) -> str:
    """The reason for which a token is refused. It must be."""
    with pytest.raises(Unauthenticated) as refusal:
        await verifier.verify(authorization)
    return refusal.value.reason_name


async def test_a_good_token_tells_who_its_holder_is(issuer: Issuer, verifier: Verifier) -> None:
    assert await verifier.verify(issuer.authorization(7)) == holder(7)


async def test_the_scheme_may_be_written_in_any_case(issuer: Issuer, verifier: Verifier) -> None:
    assert await verifier.verify(f"bEARER {issuer.token()}") == holder(7)


@pytest.mark.parametrize(
    ("roles", "staff", "superuser"),
    [([], False, False), (["staff"], True, False), (["superuser"], True, True), (["Staff", "other"], False, False)],
)
async def test_the_roles_of_a_token_are_its_holders(
    issuer: Issuer, verifier: Verifier, roles: list[str], staff: bool, superuser: bool
) -> None:
    caller = await verifier.verify(issuer.authorization(7, *roles))

    assert caller == holder(7, staff=staff, superuser=superuser)


async def test_a_token_that_names_no_roles_has_none(issuer: Issuer, verifier: Verifier) -> None:
    assert await verifier.verify(f"Bearer {issuer.token(issuer.claims(roles=None))}") == holder(7)


async def test_no_token_is_missing(verifier: Verifier) -> None:
    assert await refused(verifier, "") == "TOKEN_MISSING"


async def test_another_scheme_is_refused(issuer: Issuer, verifier: Verifier) -> None:
    for authorization in (f"Basic {issuer.token()}", issuer.token(), "Bearer", "Bearer ", f"Bearer\t{issuer.token()}"):
        assert await refused(verifier, authorization) == "TOKEN_INVALID"


async def test_an_expired_token_says_so(issuer: Issuer, verifier: Verifier) -> None:
    now = int(time.time())

    assert (
        await refused(verifier, f"Bearer {issuer.token(issuer.claims(iat=now - 901, exp=now - 1))}") == "TOKEN_EXPIRED"
    )


@pytest.mark.parametrize("claim", identity.REQUIRED_CLAIMS)
async def test_a_token_without_a_required_claim_is_refused(issuer: Issuer, verifier: Verifier, claim: str) -> None:
    assert await refused(verifier, f"Bearer {issuer.token(issuer.claims(**{claim: None}))}") == "TOKEN_INVALID"


@pytest.mark.parametrize(
    "changes",
    [
        {"iss": "somebody"},
        {"aud": "somebody"},
        {"aud": [identity.AUDIENCE]},
        {"aud": [identity.AUDIENCE, "somebody"]},
        {"nbf": 2**40},
        {"iat": 2**40},
        {"iat": "yesterday"},
        {"exp": "tomorrow"},
        {"exp": [2**40]},
        {"exp": {}},
        {"exp": float("inf")},
        {"exp": float("nan")},
        {"sub": "ana"},
        {"sub": ""},
        {"sub": "7.5"},
        {"sub": "-7"},
        {"sub": "0"},
        {"sub": "1_0"},
        {"sub": " 7"},
        {"sub": "\N{ARABIC-INDIC DIGIT SEVEN}"},
        {"roles": "superuser"},
        {"roles": {"superuser": True}},
        {"roles": 1},
    ],
    ids=repr,
)
async def test_a_token_with_a_claim_that_is_wrong_is_refused(
    issuer: Issuer, verifier: Verifier, changes: dict[str, Any]
) -> None:
    assert await refused(verifier, f"Bearer {issuer.token(issuer.claims(**changes))}") == "TOKEN_INVALID"


@pytest.mark.parametrize(
    "header",
    [{"typ": "JWT"}, {"typ": ""}, {"typ": None}, {"kid": "unknown"}, {"kid": "../../../etc/passwd"}],
    ids=repr,
)
async def test_a_token_with_a_header_that_is_wrong_is_refused(
    issuer: Issuer, verifier: Verifier, header: dict[str, Any]
) -> None:
    assert await refused(verifier, f"Bearer {issuer.token(**header)}") == "TOKEN_INVALID"


NO_HEADERS = [[], "header", 7, None, {}, {"kid": None}, {"kid": 7}, {"kid": ["test-key"]}]


@pytest.mark.parametrize("header", NO_HEADERS, ids=repr)
async def test_a_header_that_is_none_is_refused(issuer: Issuer, verifier: Verifier, header: Any) -> None:
    if header:
        header = {"typ": identity.TYPE, "alg": identity.ALGORITHM, **header} if isinstance(header, dict) else header
    _, payload, signature = issuer.token().split(".")

    assert await refused(verifier, f"Bearer {encoded(header)}.{payload}.{signature}") == "TOKEN_INVALID"


async def test_a_header_that_is_nested_deeply_is_refused(issuer: Issuer, verifier: Verifier) -> None:
    _, payload, signature = issuer.token().split(".")
    nested = base64.urlsafe_b64encode(b"[" * 2500).decode().rstrip("=")

    assert await refused(verifier, f"Bearer {nested}.{payload}.{signature}") == "TOKEN_INVALID"


async def test_a_token_that_nobody_signed_is_refused(issuer: Issuer, verifier: Verifier) -> None:
    header = {"typ": identity.TYPE, "kid": "test-key"}
    payload = encoded(issuer.claims())
    for algorithm in ("none", "None", "NONE", identity.ALGORITHM):
        assert await refused(verifier, f"Bearer {encoded({**header, 'alg': algorithm})}.{payload}.") == "TOKEN_INVALID"


@pytest.mark.parametrize("encoding", ["raw", "pem"])
async def test_the_public_key_is_no_secret_to_sign_with(issuer: Issuer, verifier: Verifier, encoding: str) -> None:
    public = issuer.keys["test-key"].public_key()
    secret = (
        public.public_bytes_raw()
        if encoding == "raw"
        else public.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    )
    for named in ("HS256", identity.ALGORITHM):
        header = {"typ": identity.TYPE, "alg": named, "kid": "test-key"}
        signed = f"{encoded(header)}.{encoded(issuer.claims())}"
        signature = base64.urlsafe_b64encode(hmac.digest(secret, signed.encode(), hashlib.sha256)).decode().rstrip("=")

        assert await refused(verifier, f"Bearer {signed}.{signature}") == "TOKEN_INVALID"


async def test_a_token_that_somebody_else_signed_is_refused(issuer: Issuer, verifier: Verifier) -> None:
    forged = issuer.token(key=ed25519.Ed25519PrivateKey.generate())

    assert await refused(verifier, f"Bearer {forged}") == "TOKEN_INVALID"


async def test_a_token_that_is_cut_off_anywhere_is_refused(issuer: Issuer, verifier: Verifier) -> None:
    token = issuer.token()
    for length in range(len(token)):
        assert await refused(verifier, f"Bearer {token[:length]}") == "TOKEN_INVALID"


async def test_a_token_of_eight_kilobytes_is_refused(issuer: Issuer, verifier: Verifier) -> None:
    for token in (issuer.token(issuer.claims(jti="x" * 6000)), "x" * 8192, "." * 8192):
        assert await refused(verifier, f"Bearer {token}") == "TOKEN_INVALID"


async def test_a_token_that_was_changed_is_refused_or_says_the_same(issuer: Issuer, verifier: Verifier) -> None:
    chance = random.Random(20)
    token = issuer.token()
    characters = "abcXYZ019-_.=+/ \x00é"
    for _ in range(500):
        changed = list(token)
        for _ in range(chance.randint(1, 4)):
            place = chance.randrange(len(changed))
            changed[place : place + chance.randint(0, 3)] = chance.choices(characters, k=chance.randint(0, 3))
        mutant = "".join(changed)
        try:
            caller = await verifier.verify(f"Bearer {mutant}")
        except Unauthenticated as refusal:
            assert refusal.reason_name == "TOKEN_INVALID"  # noqa: PT017 (most are refused, but not all)
        else:
            # Base64 spells the same signature in more than one way.
            assert caller == holder(7)
            assert mutant.split(".")[:2] == token.split(".")[:2]


async def test_a_verified_token_is_remembered_until_it_expires(
    issuer: Issuer, verifier: Verifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded: list[str] = []
    decode = jwt.decode

    def counted(token: str, *args: Any, **kwargs: Any) -> Any:
        decoded.append(token)
        return decode(token, *args, **kwargs)

    monkeypatch.setattr(jwt, "decode", counted)
    authorization = issuer.authorization()
    now = time.time()

    for later in (0, 0, 890):
        monkeypatch.setattr(time, "time", lambda later=later: now + later)
        await verifier.verify(authorization)
    assert len(decoded) == 1

    monkeypatch.setattr(time, "time", lambda: now + 901)
    await verifier.verify(authorization)
    assert len(decoded) == 2


async def test_a_remembered_token_expires(issuer: Issuer, verifier: Verifier) -> None:
    authorization = f"Bearer {issuer.token(issuer.claims(exp=int(time.time()) + 1))}"
    reason = ""
    async with asyncio.timeout(5):
        while not reason:
            try:
                await verifier.verify(authorization)
            except Unauthenticated as refusal:
                reason = refusal.reason_name
            await asyncio.sleep(0.02)

    assert reason == "TOKEN_EXPIRED"


async def test_unknown_keys_are_asked_for_once_in_ten_seconds(
    issuer: Issuer, verifier: Verifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = time.monotonic()
    monkeypatch.setattr(identity.time, "monotonic", lambda: now)
    for number in range(50):
        assert await refused(verifier, f"Bearer {issuer.token(kid=f'unknown {number}')}") == "TOKEN_INVALID"
    assert issuer.fetches == 1

    now += 9.9
    assert await refused(verifier, f"Bearer {issuer.token(kid='unknown')}") == "TOKEN_INVALID"
    assert issuer.fetches == 1

    now += 0.2
    assert await refused(verifier, f"Bearer {issuer.token(kid='unknown')}") == "TOKEN_INVALID"
    assert issuer.fetches == 2


async def test_callers_who_arrive_together_fetch_the_keys_once(issuer: Issuer, verifier: Verifier) -> None:
    callers = await asyncio.gather(*(verifier.verify(issuer.authorization(number)) for number in range(1, 51)))

    assert [caller.user_id for caller in callers] == list(range(1, 51))
    assert issuer.fetches == 1


async def test_a_new_key_is_found(issuer: Issuer, verifier: Verifier, monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.monotonic()
    monkeypatch.setattr(identity.time, "monotonic", lambda: now)
    await verifier.verify(issuer.authorization())
    issuer.keys["new"] = ed25519.Ed25519PrivateKey.generate()
    now += 11

    assert await verifier.verify(f"Bearer {issuer.token(key=issuer.keys['new'], kid='new')}") == holder(7)


FETCH_FAILURES = [
    grpc.aio.AioRpcError(code, grpc.aio.Metadata(), grpc.aio.Metadata())
    for code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.INTERNAL)
]


@pytest.mark.parametrize("failure", FETCH_FAILURES, ids=lambda failure: failure.code().name)
async def test_without_keys_a_token_is_neither_good_nor_bad(
    issuer: Issuer, verifier: Verifier, failure: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = time.monotonic()
    monkeypatch.setattr(identity.time, "monotonic", lambda: now)
    issuer.failure = failure
    for _ in range(3):
        with pytest.raises(Unavailable) as unavailable:
            await verifier.verify(issuer.authorization())
        assert unavailable.value.retry_after
    assert issuer.fetches == 1

    issuer.failure = None
    now += 1.1
    assert await verifier.verify(issuer.authorization()) == holder(7)


async def test_a_key_that_could_not_be_asked_for_is_not_unknown(
    issuer: Issuer, verifier: Verifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = time.monotonic()
    monkeypatch.setattr(identity.time, "monotonic", lambda: now)
    await verifier.verify(issuer.authorization())
    issuer.keys["new"] = ed25519.Ed25519PrivateKey.generate()
    token = issuer.token(key=issuer.keys["new"], kid="new")
    issuer.failure = FETCH_FAILURES[0]
    now += 11
    for _ in range(2):
        with pytest.raises(Unavailable):
            await verifier.verify(f"Bearer {token}")

    issuer.failure = None
    now += 1.1
    assert await verifier.verify(f"Bearer {token}") == holder(7)


async def test_who_gives_up_while_the_keys_are_fetched_fails_nobody_else(issuer: Issuer) -> None:
    asked = asyncio.Event()
    answered = asyncio.Event()

    async def slow() -> Any:
        asked.set()
        await answered.wait()
        return await issuer.published()

    verifier = Verifier(slow, issuer.revocations)
    impatient = asyncio.ensure_future(verifier.verify(issuer.authorization(1)))
    patient = asyncio.ensure_future(verifier.verify(issuer.authorization(2)))
    await asked.wait()
    impatient.cancel()
    answered.set()

    assert await patient == holder(2)


def encoded(part: Any) -> str:
    return base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=")
