"""Signed addresses of blobs in S3, which are good for some time."""

from __future__ import annotations

import datetime
import threading
import zlib
from collections.abc import Callable
from typing import Any

from botocore.auth import SIGV4_TIMESTAMP, S3SigV4QueryAuth
from botocore.awsrequest import AWSRequest


class SignedUrls:
    """Makes the signed addresses of blobs, and remembers them. From any thread.

    Time goes in steps of half of what an address is good for; each folder's begin at a moment of its own, so that not
    all addresses change at once. Within a step every process makes the same address of a blob, signed as of the step's
    beginning: browsers load it once. So whatever is handed out is good for at least half of the time.

    Args:
        bucket_url: What the addresses of all blobs begin with, without a slash at its end.
        credentials: As of a boto3 session.
        seconds: How long an address is good for from when it is signed.
        clock: Seconds since 1970.
        most: How many addresses are remembered. One takes half a kilobyte.
    """

    def __init__(
        self,
        bucket_url: str,
        credentials: Any,
        region: str,
        seconds: int,
        clock: Callable[[], float],
        most: int = 20_000,
    ) -> None:
        self._bucket_url = bucket_url
        self._credentials = credentials
        self._region = region
        self._seconds = seconds
        self._step = seconds // 2
        self._clock = clock
        self._most = most
        self._lock = threading.Lock()
        # The end of the step, and the address. The one that was made first is the first to be forgotten.
        self._made: dict[tuple[str, str], tuple[float, str]] = {}

    def of(self, folder: str, key: str) -> str:
        """The address of a blob.

        Args:
            key: Of the blob, within the bucket.
        """
        now = self._clock()
        made = self._made.get((folder, key))
        if made is not None and made[0] - self._step <= now < made[0]:
            return made[1]
        begin = _begin_of_step(now, self._step, zlib.crc32(folder.encode()))
        url = self._signed(key, begin)
        with self._lock:
            self._made.pop((folder, key), None)
            if len(self._made) >= self._most:
                del self._made[next(iter(self._made))]
            self._made[folder, key] = (begin + self._step, url)
        return url

    def _signed(self, key: str, at: int) -> str:
        request = AWSRequest("GET", f"{self._bucket_url}/{key}")
        _SignerAt(at, self._credentials.get_frozen_credentials(), "s3", self._region, self._seconds).add_auth(request)
        return str(request.url)


def _begin_of_step(now: float, step: int, offset: int) -> int:
    return int(now) - (int(now) - offset) % step


class _SignerAt(S3SigV4QueryAuth):  # type: ignore[misc]
    """Signs as of a moment, in place of now."""

    def __init__(self, at: int, *of_signer: Any) -> None:
        super().__init__(*of_signer)
        self._timestamp = datetime.datetime.fromtimestamp(at, datetime.UTC).strftime(SIGV4_TIMESTAMP)

    def _modify_request_before_signing(self, request: Any) -> None:
        request.context["timestamp"] = self._timestamp
        super()._modify_request_before_signing(request)
