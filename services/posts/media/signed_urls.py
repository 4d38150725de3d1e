"""Signed addresses of blobs in S3, which are good for some time, and signed forms of uploads."""

from __future__ import annotations

import base64
import functools
import hashlib
import hmac
import json
import threading
import time
import zlib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple
from urllib.parse import quote, urlsplit

from botocore.auth import SIGV4_TIMESTAMP, SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import RefreshableCredentials

from chassis import logs

# From one look whether credentials are to be renewed to the next. botocore renews them a quarter of an hour before they
# expire, if it can.
_PAUSE_SECONDS = 30
_ALGORITHM = "AWS4-HMAC-SHA256"

log = logs.get(__name__)


class Credentials(NamedTuple):
    """What is signed with.

    Attributes:
        expire_time: Seconds since 1970. None: never, or nobody knows.
    """

    access_key: str
    secret_key: str
    token: str | None
    expire_time: float | None


class KeptCredentials:
    """Credentials that are at hand whenever something is to be signed. From any thread.

    Temporary ones are renewed before they expire, on a thread of their own: it may take the network seconds.

    Args:
        source: As of a boto3 session.
    """

    def __init__(self, source: Any) -> None:
        self._source = source
        self._latest = self._previous = self._look()
        self._is_closed = threading.Event()
        if isinstance(source, RefreshableCredentials):
            threading.Thread(target=self._renew, name="s3-credentials", daemon=True).start()

    @property
    def latest(self) -> Credentials:
        return self._latest

    @property
    def expire_time(self) -> float | None:
        """When the first of those expires that were the latest in the last seconds. None: never, or nobody knows."""
        times = (each.expire_time for each in (self._previous, self._latest))
        return min((each for each in times if each is not None), default=None)

    def close(self) -> None:
        """Renew them no more."""
        self._is_closed.set()

    def _renew(self) -> None:
        while not self._is_closed.wait(_PAUSE_SECONDS):
            try:
                looked = self._look()
            except Exception as failure:
                # Each source has its own, whose texts may hold credentials.
                log.error("credentials of S3 cannot be renewed", error=type(failure).__name__)
            else:
                self._previous, self._latest = self._latest, looked

    def _look(self) -> Credentials:
        self._source.get_frozen_credentials()
        # Nothing public tells it. Calls renew them, too: those that are read after it are good for at least as long.
        expiry = getattr(self._source, "_expiry_time", None)
        frozen = self._source.get_frozen_credentials()
        return Credentials(frozen.access_key, frozen.secret_key, frozen.token, expiry and expiry.timestamp())


class _Day(NamedTuple):
    """What all signatures of a day have in common."""

    scope: str
    key: bytes


class Signer:
    """Signs requests to a bucket for whoever sends them, with Signature Version 4 of AWS.

    botocore signs the same, but takes ten times as long: it derives the key of the day for each.
    Source: AWS, Amazon S3 API Reference, "Authenticating Requests (AWS Signature Version 4)".

    Args:
        bucket_url: What the addresses of all blobs begin with, without a slash at its end.
    """

    def __init__(self, bucket: str, bucket_url: str, region: str) -> None:
        self._bucket = bucket
        self._region = region
        self._path = urlsplit(bucket_url).path
        self._origin = bucket_url.removesuffix(self._path)
        self._host = SigV4Auth(None, "s3", region).headers_to_sign(AWSRequest("GET", bucket_url))["host"]
        # Of today and yesterday, with the latest credentials and those before.
        self._day = functools.lru_cache(4)(self._derived)

    def url(self, credentials: Credentials, key: str, at: int, seconds: int) -> str:
        """The address of a blob that is good for so many seconds from a moment on.

        Args:
            key: Of the blob. None of its characters has to be quoted.
        """
        moment = _moment(at)
        day = self._day(credentials, moment[:8])
        credential = quote(f"{credentials.access_key}/{day.scope}", safe="")
        token = f"&X-Amz-Security-Token={quote(credentials.token, safe='')}" if credentials.token else ""
        path = f"{self._path}/{key}"
        # In the order of the alphabet, as they are signed.
        query = (
            f"X-Amz-Algorithm={_ALGORITHM}&X-Amz-Credential={credential}&X-Amz-Date={moment}"
            f"&X-Amz-Expires={seconds}{token}&X-Amz-SignedHeaders=host"
        )
        request = f"GET\n{path}\n{query}\nhost:{self._host}\n\nhost\nUNSIGNED-PAYLOAD"
        digest = hashlib.sha256(request.encode()).hexdigest()
        signature = _signature(day, f"{_ALGORITHM}\n{moment}\n{day.scope}\n{digest}")
        return f"{self._origin}{path}?{query}&X-Amz-Signature={signature}"

    def form(
        self, credentials: Credentials, key: str, content_type: str, size: int, at: int, seconds: int
    ) -> Mapping[str, str]:
        """The fields of a form that uploads a blob of this size, within so many seconds from a moment on."""
        moment = _moment(at)
        day = self._day(credentials, moment[:8])
        fields = {
            "key": key,
            "Content-Type": content_type,
            "x-amz-algorithm": _ALGORITHM,
            "x-amz-credential": f"{credentials.access_key}/{day.scope}",
            "x-amz-date": moment,
        }
        if credentials.token:
            fields["x-amz-security-token"] = credentials.token
        conditions = [
            {"bucket": self._bucket},
            ["content-length-range", size, size],
            *({name: value} for name, value in fields.items()),
        ]
        expiration = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(at + seconds))
        policy = base64.b64encode(json.dumps({"expiration": expiration, "conditions": conditions}).encode()).decode()
        return {**fields, "policy": policy, "x-amz-signature": _signature(day, policy)}

    def _derived(self, credentials: Credentials, date: str) -> _Day:
        key = f"AWS4{credentials.secret_key}".encode()
        for part in (date, self._region, "s3", "aws4_request"):
            key = hmac.digest(key, part.encode(), "sha256")
        return _Day(f"{date}/{self._region}/s3/aws4_request", key)


class SignedUrls:
    """Makes the signed addresses of blobs, and remembers them. From any thread.

    Time goes in steps of half of what an address is good for; each folder's begin at a moment of its own, so that not
    all addresses change at once. Within a step every process that has the same credentials makes the same address of a
    blob, signed as of the step's beginning: browsers load it once. So whatever is handed out is good for at least half
    of the time, or until the credentials expire: with others it is signed anew.

    Args:
        seconds: How long an address is good for from when it is signed.
        clock: Seconds since 1970.
        most: How many addresses are remembered. One takes half a kilobyte, or two with temporary credentials.
    """

    def __init__(
        self,
        signer: Signer,
        credentials: KeptCredentials,
        seconds: int,
        clock: Callable[[], float],
        most: int = 20_000,
    ) -> None:
        self._signer = signer
        self._credentials = credentials
        self._seconds = seconds
        self._step = seconds // 2
        self._clock = clock
        self._most = most
        self._lock = threading.Lock()
        # The one that was made first is the first to be forgotten.
        self._made: dict[tuple[str, str], _Made] = {}

    def of(self, folder: str, key: str) -> str:
        """The address of a blob.

        Args:
            key: Of the blob, within the bucket.
        """
        now = self._clock()
        credentials = self._credentials.latest
        made = self._made.get((folder, key))
        if made is not None and made.access_key == credentials.access_key and made.end - self._step <= now < made.end:
            return made.url
        begin = _begin_of_step(now, self._step, zlib.crc32(folder.encode()))
        url = self._signer.url(credentials, key, begin, self._seconds)
        with self._lock:
            self._made.pop((folder, key), None)
            if len(self._made) >= self._most:
                del self._made[next(iter(self._made))]
            self._made[folder, key] = _Made(begin + self._step, credentials.access_key, url)
        return url


class _Made(NamedTuple):
    """An address, until the end of its step."""

    end: float
    access_key: str
    url: str


def _begin_of_step(now: float, step: int, offset: int) -> int:
    return int(now) - (int(now) - offset) % step


def _moment(at: int) -> str:
    return time.strftime(SIGV4_TIMESTAMP, time.gmtime(at))


def _signature(day: _Day, text: str) -> str:
    return hmac.digest(day.key, text.encode(), "sha256").hex()
