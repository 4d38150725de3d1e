"""Ten thousand tokens that prove nothing: each is refused with its reason, none costs much, none is remembered."""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
import hmac
import itertools
import json
import os
import random
import statistics
import time
import tracemalloc
import urllib.request
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import grpc
import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, padding, rsa, utils

from chassis import identity
from chassis.errors import Unauthenticated
from insta.gateway.v1 import posts_pb2, posts_pb2_grpc
from tests import databases
from tests.chassis.issuer import Issuer
from tests.people import Failure, People
from tests.running import RunningSuite

COUNT = 10_000
# Of each kind some hundreds.
FEWER = 3_000
SEED = 20
AT_ONCE = 8
# Of one call while others are under way; measured are some 4 and 20 ms on two busy cores.
P99_SECONDS = 0.1
LONGEST_SECONDS = 2.0
# Of those of one kind: what the content of a token costs, which the load of the machine hides less.
MEDIAN_SECONDS = 0.05
_ORDER = 2**252 + 27742317777372353535851937790883648493
_WITHOUT = object()
_FETCHES = 'insta_calls_total{code="OK",method="insta.users.v1.AuthService/GetKeySet"}'

Metadata = tuple[tuple[str, str], ...]
Sign = Callable[[bytes], bytes]


def encoded(content: bytes) -> str:
    """base64url without padding, as in a JWS."""
    return base64.urlsafe_b64encode(content).decode().rstrip("=")


def decoded(part: str) -> bytes:
    return base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))


def bearer(*tokens: str) -> Metadata:
    return tuple(("authorization", f"Bearer {token}") for token in tokens)


class Forger:
    """Makes tokens of any kind.

    It has the key of the suite, which no attacker has, so that a claim can be all that is wrong with a token.
    """

    def __init__(self, key: ed25519.Ed25519PrivateKey, kid: str, chance: random.Random) -> None:
        self.key = key
        self.kid = kid
        self.chance = chance
        self.stranger = ed25519.Ed25519PrivateKey.generate()
        self.goldilocks = ed448.Ed448PrivateKey.generate()
        self.curve = ec.generate_private_key(ec.SECP256R1())
        self.rsa = rsa.generate_private_key(65537, 2048)

    def header(self, **changes: Any) -> dict[str, Any]:
        return _changed({"alg": identity.ALGORITHM, "typ": identity.TYPE, "kid": self.kid}, changes)

    def claims(self, **changes: Any) -> dict[str, Any]:
        now = int(time.time())
        good = {
            "iss": identity.ISSUER,
            "aud": identity.AUDIENCE,
            "sub": str(self.chance.randint(1, 1000)),
            "client_id": "insta",
            "sid": f"session {self.chance.getrandbits(64):x}",
            "jti": f"{self.chance.getrandbits(96):x}",
            "iat": now,
            "exp": now + identity.LIFETIME_SECONDS,
            "roles": [],
        }
        return _changed(good, changes)

    def token(self, header: Any = None, claims: Any = None, sign: Sign | None = None) -> str:
        """A good token, but for what is given: a header and claims as text, as bytes, or to be written as JSON."""
        parts = (self.header() if header is None else header, self.claims() if claims is None else claims)
        signed = ".".join(encoded(_bytes(part)) for part in parts)
        return f"{signed}.{encoded((sign or self.key.sign)(signed.encode()))}"

    def by_curve(self, signed: bytes) -> bytes:
        r, s = utils.decode_dss_signature(self.curve.sign(signed, ec.ECDSA(hashes.SHA256())))
        return r.to_bytes(32, "big") + s.to_bytes(32, "big")

    def by_rsa(self, signed: bytes) -> bytes:
        return self.rsa.sign(signed, padding.PKCS1v15(), hashes.SHA256())

    @cached_property
    def public_spellings(self) -> list[bytes]:
        """The public key in the ways in which somebody might take it for a secret."""
        public = self.key.public_key()
        raw = public.public_bytes_raw()
        jwk = {"kty": "OKP", "crv": "Ed25519", "x": encoded(raw), "kid": self.kid}
        pem = public.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
        return [
            raw,
            pem,
            pem.strip(),
            public.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo),
            public.public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH),
            binascii.hexlify(raw),
            base64.b64encode(raw),
            encoded(raw).encode(),
            _bytes(jwk),
            _bytes({"keys": [jwk]}),
        ]


def _changed(names: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in {**names, **changes}.items() if value is not _WITHOUT}


def _bytes(part: Any) -> bytes:
    if isinstance(part, bytes):
        return part
    return (part if isinstance(part, str) else json.dumps(part, separators=(",", ":"))).encode()


# Each of these makes all mutants of one kind, for one good token that is new each time.


def cut_off(forger: Forger) -> Iterator[Metadata]:
    token = forger.token()
    for length in forger.chance.sample(range(len(token)), 20):
        yield bearer(token[:length])


def not_signed(forger: Forger) -> Iterator[Metadata]:
    for named in ("none", "None", "NONE", "nOnE", "", "null", None, _WITHOUT, identity.ALGORITHM):
        for signature in (b"", bytes(64), b"none"):
            yield bearer(forger.token(forger.header(alg=named), sign=lambda _, signature=signature: signature))
        yield bearer(forger.token(forger.header(alg=named)).rpartition(".")[0])


def signed_with_the_public_key_as_secret(forger: Forger) -> Iterator[Metadata]:
    digests = {"HS256": "sha256", "HS384": "sha384", "HS512": "sha512"}
    for secret in (*forger.public_spellings, b"", bytes(32), forger.kid.encode(), b"secret", b"insta"):
        for named, digest in digests.items():
            sign = _by_secret(secret, digest)
            yield bearer(forger.token(forger.header(alg=named), sign=sign))
        yield bearer(forger.token(sign=sign))


def _by_secret(secret: bytes, digest: str) -> Sign:
    return lambda signed: hmac.digest(secret, signed, digest)


def signed_with_another_key(forger: Forger) -> Iterator[Metadata]:
    signers = (forger.stranger.sign, forger.goldilocks.sign, forger.by_curve, forger.by_rsa)
    for sign in signers:
        for named in ("EdDSA", "Ed25519", "Ed448", "ES256", "ES256K", "RS256", "PS256"):
            yield bearer(forger.token(forger.header(alg=named), sign=sign))
        for kid in ("posts", "social", _WITHOUT):
            yield bearer(forger.token(forger.header(kid=kid), sign=sign))


def said_to_be_of_another_algorithm(forger: Forger) -> Iterator[Metadata]:
    for named in ("eddsa", "EDDSA", "EdDSA ", "Ed25519", "Ed448", "HS256", "ES256", "RS256", 5, True, ["EdDSA"], {}):
        yield bearer(forger.token(forger.header(alg=named)))


def with_another_signature(forger: Forger) -> Iterator[Metadata]:
    token = forger.token()
    signed, _, last = token.rpartition(".")
    signature = decoded(last)
    scalar = int.from_bytes(signature[32:], "little")
    for other in (
        b"",
        bytes(64),
        b"\xff" * 64,
        signature[:63],
        signature + b"\0",
        signature[32:] + signature[:32],
        signature[::-1],
        decoded(forger.token().rpartition(".")[2]),
        forger.key.sign(forger.key.sign(signed.encode())),
        # The other spelling of the same signature, which RFC 8032 (5.1.7) refuses.
        signature[:32] + (scalar + _ORDER).to_bytes(32, "little"),
        bytes([1, *bytes(31)]) + bytes(32),
    ):
        yield bearer(f"{signed}.{encoded(other)}")


KIDS = [
    "",
    "unknown",
    "../../../../etc/passwd",
    "/dev/null",
    "file:///dev/null",
    "https://127.0.0.1/key.json",
    "' OR '1'='1",
    "x' UNION SELECT 'secret' --",
    "key; DROP TABLE signing_key",
    "$(id)",
    "{{7*7}}",
    "%00",
    "\0",
    "k\N{LATIN SMALL LETTER E WITH ACUTE}y",
    "\N{FULLWIDTH DIGIT ONE}" * 16,
    "\ud800",
    "__class__",
    "k" * 8192,
    "k" * 2000,
    None,
    0,
    7,
    1.5,
    True,
    [],
    ["unknown"],
    {},
    {"kid": "unknown"},
]


def of_a_key_that_is_none(forger: Forger) -> Iterator[Metadata]:
    for kid in (*KIDS, forger.kid.upper(), f" {forger.kid}", f"{forger.kid}\0", f"{forger.chance.getrandbits(64):x}"):
        # Neither is found by it, whoever signed.
        for sign in (forger.key.sign, forger.stranger.sign, _by_secret(b"", "sha256")):
            yield bearer(forger.token(forger.header(kid=kid), sign=sign))


def bringing_a_key_along(forger: Forger) -> Iterator[Metadata]:
    own = {"kty": "OKP", "crv": "Ed25519", "x": encoded(forger.stranger.public_key().public_bytes_raw())}
    raw = base64.b64encode(forger.stranger.public_key().public_bytes_raw()).decode()
    for brought in (
        {"jwk": own},
        {"jwk": {**own, "kid": forger.kid}},
        {"jwk": json.dumps(own)},
        {"jwk": {"kty": "oct", "k": ""}},
        {"jku": "https://127.0.0.1/keys.json"},
        {"jku": "file:///etc/passwd"},
        {"x5u": "https://127.0.0.1/chain.pem"},
        {"x5c": [raw]},
        {"x5t": "A" * 27, "x5t#S256": "A" * 43},
        {"keys": [own]},
        {"key": own},
    ):
        for kid in (forger.kid, "brought along", _WITHOUT):
            yield bearer(forger.token(forger.header(kid=kid, **brought), sign=forger.stranger.sign))


def with_a_critical_extension(forger: Forger) -> Iterator[Metadata]:
    for crit in (["exp"], ["kid"], ["insta"], ["b64"], [], "exp", "", [7], [None], [["exp"]], {}, {"exp": 1}, 7, None):
        yield bearer(forger.token(forger.header(crit=crit, exp=2**40)))


def of_another_type(forger: Forger) -> Iterator[Metadata]:
    # RFC 9068 would also allow "application/at+jwt"; but the one issuer there is writes what it writes.
    for typ in (
        _WITHOUT,
        None,
        "",
        "JWT",
        "jwt",
        "at+JWT",
        "AT+JWT",
        "application/at+jwt",
        "at+jwt ",
        "at+jwt;v=1",
        "rt+jwt",
        "id+jwt",
        "secevent+jwt",
        "dpop+jwt",
        "JOSE",
        ["at+jwt"],
        {"at+jwt": 1},
        7,
        True,
    ):
        yield bearer(forger.token(forger.header(typ=typ)))


def of_another_content(forger: Forger) -> Iterator[Metadata]:
    token = forger.token()
    claims = _bytes(forger.claims())
    detached = forger.header(b64=False, crit=["b64"])
    signed = f"{encoded(_bytes(detached))}.".encode()
    yield bearer(forger.token(forger.header(cty="JWT"), token))
    yield bearer(forger.token(None, token))
    yield bearer(forger.token(forger.header(cty="JWT"), token, forger.stranger.sign))
    yield bearer(forger.token(forger.header(zip="DEF"), zlib.compress(claims)))
    yield bearer(forger.token(forger.header(zip="DEF"), zlib.compress(bytes(2_000_000), 9)))
    yield bearer(forger.token(detached))
    yield bearer(forger.token(forger.header(b64=False)))
    yield bearer(f"{signed.decode()}.{encoded(forger.key.sign(signed + claims))}")
    yield bearer(f"{signed.decode()}{claims.decode()}.{encoded(forger.key.sign(signed + claims))}")


def of_other_parts(forger: Forger) -> Iterator[Metadata]:
    header, claims, signature = forger.token().split(".")
    sealed = encoded(_bytes({"alg": "ECDH-ES", "enc": "A256GCM", "typ": identity.TYPE, "kid": forger.kid}))
    blob = encoded(forger.chance.randbytes(40))
    flattened = {"protected": header, "payload": claims, "signature": signature}
    general = {"payload": claims, "signatures": [{"protected": header, "signature": signature}]}
    for token in (
        f"{sealed}.{blob}.{blob}.{blob}.{blob}",
        f"{sealed}..{blob}.{blob}.{blob}",
        f"{header}.{claims}.{signature}.{blob}.{blob}",
        f"{header}.{claims}.{signature}.",
        f".{header}.{claims}.{signature}",
        f"{header}..{claims}.{signature}",
        f"{header}.{claims}.{claims}.{signature}",
        f"{claims}.{header}.{signature}",
        f"{header}.{signature}.{claims}",
        f"{header}.{claims}..",
        f"{header}..{signature}",
        f".{claims}.{signature}",
        "..",
        ".",
        "null",
        "undefined",
        _bytes(flattened).decode(),
        _bytes(general).decode(),
        encoded(_bytes(flattened)),
        "e30.e30.e30",
        "e30.e30.",
    ):
        yield bearer(token)


def spelled_otherwise(forger: Forger) -> Iterator[Metadata]:
    # One whose signature has characters that other alphabets write otherwise.
    token = next(token for token in iter(forger.token, "") if {"-", "_"} <= set(token.rpartition(".")[2][:-1]))
    header, claims, signature = token.split(".")
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    # The last character has two bits of the signature, and four that say nothing.
    last = alphabet.index(signature[-1]) & 0b110000
    for idle in range(16):
        if alphabet[last | idle] != signature[-1]:
            yield bearer(f"{header}.{claims}.{signature[:-1]}{alphabet[last | idle]}")
    for pad in ("=", "==", "===", "====", "A", "=A", "%3D%3D"):
        yield bearer(f"{token}{pad}")
        yield bearer(f"{header}{pad}.{claims}.{signature}")
        yield bearer(f"{header}.{claims}{pad}.{signature}")
    yield bearer(f"{header}.{claims}.{signature.replace('-', '+').replace('_', '/')}")
    yield bearer(f"{header}.{claims}.{signature.replace('-', '+')}")
    yield bearer(f"{header}.{claims}.{signature.replace('_', '/')}")
    yield bearer(f"{header}.{claims}.{binascii.hexlify(decoded(signature)).decode()}")
    yield bearer(f"{header}.{claims}.{base64.b32encode(decoded(signature)).decode()}")
    for space in (" ", "  ", "%20", "%0A", "+"):
        place = forger.chance.randrange(1, len(token))
        yield bearer(f"{token[:place]}{space}{token[place:]}")
        yield bearer(f"{header}{space}.{claims}.{signature}")
    for quote in ('"', "'", "<", "["):
        yield bearer(f"{quote}{token}{quote}")


def of_bytes_that_changed(forger: Forger) -> Iterator[Metadata]:
    token = forger.token()
    for _ in range(20):
        changed = list(token)
        for place in forger.chance.sample(range(len(token)), forger.chance.randint(1, 4)):
            others = [other for other in "abcXYZ019-_.=+/~ " if other != token[place]]
            changed[place] = forger.chance.choice(others)
        yield bearer("".join(changed).strip())
    for number in range(3):
        for _ in range(10):
            parts = [bytearray(decoded(part)) for part in token.split(".")]
            bit = forger.chance.randrange(len(parts[number]) * 8)
            parts[number][bit // 8] ^= 1 << bit % 8
            yield bearer(".".join(encoded(part) for part in parts))


def with_a_claim_that_is_wrong(forger: Forger) -> Iterator[Metadata]:
    now = int(time.time())
    strange = (None, [], {}, float("nan"), float("inf"), float("-inf"), 10**30, 10**400, 1e308)
    numbers = (*strange, "", "tomorrow", str(now + 600), [now + 600], now + 86_400, now + 600.5)
    wrong: dict[str, Iterable[Any]] = {
        "iss": ("", "somebody", "INSTA", "insta/", " insta", None, 7, ["insta"], {"insta": 1}, True),
        "aud": ("", "somebody", "INSTA", "insta ", None, 7, [], ["insta"], ["insta", "somebody"], {"insta": 1}, True),
        "exp": numbers,
        "iat": (*numbers, -1, 0, True, str(now)),
        "nbf": (now + 3600, 10**30, 10**400, float("nan"), float("inf"), "tomorrow", [], {}),
        "sub": (
            *(0, 1, -1, 7.5, True, None, [], ["1"], {}, {"id": 1}, "", "0", "-1", "+1", "01", "1.0", "1e3", "0x1"),
            *(" 1", "1 ", "1\n", "1_0", "1,2", "ana", "1;2", "' OR 1=1 --", "\N{ARABIC-INDIC DIGIT ONE}", "\0", "1\0"),
            *(str(2**63), "9" * 19, str(2**64 + 1), "9" * 20, "9" * 1000),
        ),
        "sid": (None, "", 0, 7, 1.5, True, [], ["session"], {}, {"session": 1}),
        "jti": (None, 0, 7, [], {}, True),
        "client_id": (None,),
        "roles": (None, "", "superuser", 1, True, {}, {"superuser": True}, [7], [None], [["superuser"]], [{}]),
    }
    for claim, values in wrong.items():
        for value in values:
            yield bearer(forger.token(claims=forger.claims(**{claim: value})))
    for claim in identity.REQUIRED_CLAIMS:
        yield bearer(forger.token(claims=forger.claims(**{claim: _WITHOUT})))


def of_strange_json(forger: Forger) -> Iterator[Metadata]:
    header, claims = (_bytes(part).decode() for part in (forger.header(), forger.claims()))
    deep = "[" * 400 + "]" * 400
    for text in (
        *("", "{", "[]", "[{}]", "7", "null", "true", '"text"', "{}", "NaN", "\0", deep, "[" * 2500, '{"a":' * 600),
        *(b"\xff\xfe", b"\x80", "\ufeff{}"),
    ):
        yield bearer(forger.token(claims=text))
        yield bearer(forger.token(header=text))
    for text in (
        f"{claims}{{}}",
        f"[{claims}]",
        claims.replace(":", "="),
        claims.replace('"', "'"),
        f"\ufeff{claims}",
        f'{claims[:-1]},"sub":"0"}}',
        f'{claims[:-1]},"aud":"somebody"}}',
        f'{claims[:-1]},"roles":"superuser"}}',
        f'{claims[:-1]},"sid":""}}',
        f'{claims[:-1]},"roles":{deep}}}',
        f'{claims[:-1]},"iat":{"9" * 2000}}}',
        claims.encode("utf-16"),
        claims.encode("utf-32"),
        claims.encode().replace(b"session", b"\xff"),
    ):
        yield bearer(forger.token(claims=text))
    for text in (
        f"{header}{{}}",
        f"[{header}]",
        f'{header[:-1]},"alg":"none"}}',
        f'{header[:-1]},"kid":"unknown"}}',
        f'{header[:-1]},"typ":"JWT"}}',
        header.encode("utf-16"),
    ):
        yield bearer(forger.token(header=text))
    for text in (f'{{"alg":"none",{header[1:]}', f'{{"typ":"JWT",{header[1:]}', f'{header[:-1]},"deep":{deep}}}'):
        yield bearer(forger.token(header=text, sign=forger.stranger.sign))


def too_long(forger: Forger) -> Iterator[Metadata]:
    yield bearer(forger.token(claims=forger.claims(jti="x" * 6000)))
    yield bearer(forger.token(claims=forger.claims(roles=["x"] * 2000)))
    yield bearer(forger.token(forger.header(pad="x" * 6000)))
    for size in (4097, 8192, 12_000, 15_000):
        for character in ("A", "x", ".", "=", "-", "~"):
            yield bearer(character * size)
        yield bearer(f"{forger.token()}{'A' * size}")
        yield (("authorization", "A" * size),)
    yield bearer(encoded(b"[" * 3000) + "..")
    yield bearer("." * 4000)


def of_another_scheme(forger: Forger) -> Iterator[Metadata]:
    token = forger.token()
    for scheme in (
        "Basic ",
        "Token ",
        "JWT ",
        "DPoP ",
        "Bearer: ",
        "Bearer:",
        "Bearer=",
        "Bearer",
        "Bearer  ",
        "Be ",
        "",
    ):
        yield (("authorization", f"{scheme}{token}"),)
    for rest in (", Bearer x", ";", ",", f" {token}", "; charset=utf-8"):
        yield bearer(f"{token}{rest}")
    yield (("authorization", "Bearer"),)
    yield (("authorization", f"Bearer Bearer {token}"),)
    yield (("authorization", f"Bearer token={token}"),)
    yield (("authorization", f'Bearer "{token}"'),)


def sent_more_than_once(forger: Forger) -> Iterator[Metadata]:
    token, other = forger.token(), forger.token()
    bad = forger.token(sign=forger.stranger.sign)
    yield bearer(token, bad)
    # What reads the first of them, and what reads the last, would take two people for the caller.
    yield bearer(bad, token)
    yield bearer(token, other)
    yield bearer(bad, token, bad)
    yield (("authorization", "Basic eDp5"), *bearer(token))


def expired(forger: Forger) -> Iterator[Metadata]:
    now = int(time.time())
    for age in (0, 1, 60, 3600, 10**6):
        exp = now - age
        yield bearer(forger.token(claims=forger.claims(iat=exp - identity.LIFETIME_SECONDS, exp=exp)))
    for exp in (1, 0, -1, -(2**40), -(10**400)):
        yield bearer(forger.token(claims=forger.claims(exp=exp)))


def missing(forger: Forger) -> Iterator[Metadata]:
    token = forger.token()
    yield ()
    yield (("authorization", ""),)
    for key in ("x-authorization", "proxy-authorization", "cookie", "access-token", "x-forwarded-user"):
        yield ((key, f"Bearer {token}"),)


KINDS: dict[Callable[[Forger], Iterator[Metadata]], str] = {
    **dict.fromkeys(
        (
            cut_off,
            not_signed,
            signed_with_the_public_key_as_secret,
            signed_with_another_key,
            said_to_be_of_another_algorithm,
            with_another_signature,
            of_a_key_that_is_none,
            bringing_a_key_along,
            with_a_critical_extension,
            of_another_type,
            of_another_content,
            of_other_parts,
            spelled_otherwise,
            of_bytes_that_changed,
            with_a_claim_that_is_wrong,
            of_strange_json,
            too_long,
            of_another_scheme,
            sent_more_than_once,
        ),
        "TOKEN_INVALID",
    ),
    expired: "TOKEN_EXPIRED",
    missing: "TOKEN_MISSING",
}


def mutants(forger: Forger) -> Iterator[tuple[str, Metadata, str]]:
    """What to send, its kind, and the reason to refuse it for: all kinds, again and again with other tokens."""
    token = forger.token()
    for length in range(len(token)):
        yield "cut_off", bearer(token[:length]), "TOKEN_INVALID"
    while True:
        for kind, reason in KINDS.items():
            for metadata in kind(forger):
                yield kind.__name__, metadata, reason


def forger_of(suite: RunningSuite) -> Forger:
    """One with the key that a suite signs with."""
    ((kid, key),) = databases.rows(suite, "users", "SELECT kid, private_key FROM signing_key")
    return Forger(ed25519.Ed25519PrivateKey.from_private_bytes(bytes(key)), kid, random.Random(SEED))


def cpu_seconds(suite: RunningSuite) -> float:
    """The processor time that a suite of one process has used."""
    assert suite.process is not None
    fields = Path(f"/proc/{suite.process.pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:13])) / os.sysconf("SC_CLK_TCK")


def fetches(suite: RunningSuite) -> float:
    """How often the keys were asked for."""
    with urllib.request.urlopen(suite.metrics_url, timeout=10) as page:
        lines = page.read().decode().splitlines()
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(_FETCHES))


@pytest.mark.parametrize("count", [FEWER, pytest.param(COUNT, marks=pytest.mark.soak)])
async def test_mutants_are_refused_and_cost_no_more_than_a_good_token(together: RunningSuite, count: int) -> None:
    forger = forger_of(together)
    people = People(together.address)
    post = await (await people.join()).post()
    request = posts_pb2.GetPostRequest(post_id=post.id)
    get_post = posts_pb2_grpc.PostServiceStub(people.channel).GetPost
    seconds: dict[str, list[float]] = defaultdict(list)
    wrong: list[str] = []

    async def send(sent: Iterator[tuple[str, Metadata, str]]) -> None:
        for kind, metadata, expected in sent:
            begun = time.perf_counter()
            try:
                await get_post(request, metadata=metadata, timeout=30)
                outcome = "OK"
            except grpc.aio.AioRpcError as error:
                refusal = Failure(error)
                outcome = f"{refusal.code.name} {refusal.reason}"
            seconds[kind].append(time.perf_counter() - begun)
            if outcome != expected:
                wrong.append(f"{kind}: {outcome}, not {expected}: {str(metadata)[:600]}")

    async def cost(sent: Iterable[tuple[str, Metadata, str]]) -> float:
        """The processor time of a call."""
        everything = list(sent)
        begun = cpu_seconds(together)
        shared = iter(everything)
        await asyncio.gather(*(send(shared) for _ in range(AT_ONCE)))
        return (cpu_seconds(together) - begun) / len(everything)

    def good(count: int) -> list[tuple[str, Metadata, str]]:
        return [("good", bearer(forger.token()), "OK") for _ in range(count)]

    fetched_before, begun = fetches(together), time.monotonic()
    cost_of_good = await cost(good(500))
    cost_of_mutant = await cost(
        (kind, metadata, f"UNAUTHENTICATED {reason}")
        for kind, metadata, reason in itertools.islice(mutants(forger), count)
    )
    await cost(good(100))
    fetched = fetches(together) - fetched_before
    most_fetches = (time.monotonic() - begun) / 10 + 1
    await people.channel.close()

    assert not wrong, "\n".join(wrong[:10])
    assert set(seconds) == {"good", *(kind.__name__ for kind in KINDS)}
    assert fetched_before > 0
    assert fetched <= most_fetches
    assert cost_of_mutant <= 1.5 * cost_of_good
    spent = [taken for kind, each in seconds.items() if kind != "good" for taken in each]
    assert statistics.quantiles(spent, n=100)[98] < P99_SECONDS
    assert max(spent) < LONGEST_SECONDS
    assert {kind: each for kind, each in seconds.items() if statistics.median(each) > MEDIAN_SECONDS} == {}


async def test_of_refused_tokens_nothing_is_remembered_and_the_keys_are_asked_for_once_in_ten_seconds() -> None:
    issuer = Issuer()
    ((kid, key),) = issuer.keys.items()
    verifier = issuer.verifier()
    forger = Forger(key, kid, random.Random(SEED))

    async def growth(sent: list[Metadata]) -> int:
        """The bytes that are kept after all of these."""
        tracemalloc.start()
        before, _ = tracemalloc.get_traced_memory()
        for metadata in sent:
            with contextlib.suppress(Unauthenticated):
                await verifier.verify(metadata[0][1])
        after, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return after - before

    begun = time.monotonic()
    refused = [metadata for _, metadata, _ in itertools.islice(mutants(forger), COUNT // 8) if len(metadata) == 1]
    refused = [metadata for metadata in refused if metadata[0][0] == "authorization"]
    await growth(refused[:200])

    of_refused = await growth(refused)
    of_good = await growth([bearer(forger.token()) for _ in range(len(refused) // 10)])

    assert of_refused < of_good / 2
    assert issuer.fetches <= (time.monotonic() - begun) / 10 + 1
