"""Blobs in S3: its addresses and uploads, and what becomes of calls while it is away."""

from __future__ import annotations

import asyncio
import calendar
import http.client
import secrets
import socket
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing, closing
from typing import Any, NamedTuple
from urllib.parse import parse_qs, urlsplit

import pytest
from structlog.testing import capture_logs

from services.posts.media import s3_blobs
from services.posts.media.blob_store import Blob, BlobMissing, BlobStoreAway, BlobStoreFull, UploadTarget
from services.posts.media.s3_blobs import Patience, S3Blobs
from services.posts.media.signed_urls import SignedUrls
from tests.posts.media import bad_s3
from tests.posts.media.s3_server import BUCKET, S3Server, without_credentials

FOLDER = "0123456789abcdef" * 2
IMAGE = Blob("320.webp", "image/webp", b"pixels" * 1000)
IMPATIENT = Patience(connect=0.5, read=0.3, call=1.5)
NOW = 1_800_000_000

CALLS: dict[str, Callable[[S3Blobs], Awaitable[Any]]] = {
    "put": lambda store: store.put(FOLDER, [IMAGE, IMAGE._replace(name="320.jpg")]),
    "read": lambda store: read(store),
    "fetch": lambda store: store.fetch(FOLDER, "320.webp", 100_000),
    "delete": lambda store: store.delete(FOLDER),
    "folders": lambda store: asyncio.to_thread(list, store.folders()),
}


class Answer(NamedTuple):
    status: int
    headers: Mapping[str, str]
    body: bytes


@pytest.fixture
def prefix() -> str:
    return f"tests/{secrets.token_hex(8)}"


@pytest.fixture
def credentials(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment has those of the real server."""
    for name, value in s3_server.environment.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def some_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment has some that no server knows."""
    given = {**without_credentials(), "AWS_ACCESS_KEY_ID": "ACCESSKEY", "AWS_SECRET_ACCESS_KEY": "SECRETKEY"}
    for name, value in given.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def store(s3_server: S3Server, credentials: None, prefix: str) -> Iterator[S3Blobs]:
    with closing(S3Blobs(BUCKET, prefix, endpoint=s3_server.endpoint)) as opened:
        yield opened


async def read(store: S3Blobs) -> bytes:
    async with aclosing(store.read(FOLDER, "320.webp")) as reading:
        return b"".join([chunk async for chunk in reading])


async def ask(method: str, url: str, body: bytes = b"", content_type: str = "") -> Answer:
    """A request as a client sends it that knows nothing but an address."""

    def send() -> Answer:
        parts = urlsplit(url)
        with closing(http.client.HTTPConnection(parts.netloc, timeout=20)) as connection:
            headers = {"Content-Type": content_type} if content_type else {}
            connection.request(method, url.removeprefix(f"http://{parts.netloc}"), body or None, headers)
            answer = connection.getresponse()
            return Answer(answer.status, dict(answer.headers), answer.read())

    return await asyncio.to_thread(send)


async def upload(target: UploadTarget, data: bytes, **changed: str) -> int:
    """Post a form as a browser does. Returns the status."""
    boundary = secrets.token_hex(16)
    fields = {**target.fields, **{name.replace("_", "-"): value for name, value in changed.items()}}
    parts = [f'name="{name}"\r\n\r\n{value}'.encode() for name, value in fields.items()]
    parts.append(b'name="file"; filename="a.png"\r\nContent-Type: application/octet-stream\r\n\r\n' + data)
    form = b"".join(b"--%s\r\nContent-Disposition: form-data; %s\r\n" % (boundary.encode(), part) for part in parts)
    body = form + f"--{boundary}--\r\n".encode()
    return (await ask("POST", target.url, body, f"multipart/form-data; boundary={boundary}")).status


async def test_a_signed_address_gives_the_image_and_lets_caches_keep_it(store: S3Blobs) -> None:
    await store.put(FOLDER, [IMAGE])

    answer = await ask("GET", store.url(FOLDER, "320.webp"))

    assert (answer.status, answer.body) == (200, IMAGE.data)
    assert answer.headers["Content-Type"] == "image/webp"
    assert answer.headers["Cache-Control"] == "public, max-age=31536000, immutable"


async def test_what_is_not_signed_is_refused(store: S3Blobs) -> None:
    await store.put(FOLDER, [IMAGE, IMAGE._replace(name="640.webp")])
    url = store.url(FOLDER, "320.webp")
    assert (await ask("GET", url)).status == 200

    for other in (
        url.partition("?")[0],
        url.replace("320.webp", "640.webp"),
        url[:-1] + ("0" if url[-1] != "0" else "1"),
    ):
        assert (await ask("GET", other)).status == 403
    for method in ("PUT", "DELETE"):
        assert (await ask(method, url)).status == 403


async def test_a_signed_address_expires(s3_server: S3Server, credentials: None, prefix: str) -> None:
    def store_as_of(ago: float) -> S3Blobs:
        return S3Blobs(BUCKET, prefix, endpoint=s3_server.endpoint, url_seconds=600, clock=lambda: time.time() - ago)

    with closing(store_as_of(0)) as now, closing(store_as_of(601)) as before:
        await now.put(FOLDER, [IMAGE])
        assert (await ask("GET", now.url(FOLDER, "320.webp"))).status == 200
        assert (await ask("GET", before.url(FOLDER, "320.webp"))).status == 403


class Signer:
    """Credentials that count how often they are asked for."""

    access_key, secret_key, token = "ACCESSKEY", "SECRETKEY", None

    def __init__(self) -> None:
        self.count = 0

    def get_frozen_credentials(self) -> Signer:
        self.count += 1
        return self


def signed_urls(clock: Callable[[], float], most: int = 100) -> tuple[SignedUrls, Signer]:
    signer = Signer()
    return SignedUrls("https://images.example.com", signer, "us-east-1", 600, clock, most), signer


def left(url: str, now: float) -> float:
    """Seconds for which an address is good."""
    query = parse_qs(urlsplit(url).query)
    signed = time.strptime(query["X-Amz-Date"][0], "%Y%m%dT%H%M%SZ")
    return calendar.timegm(signed) + int(query["X-Amz-Expires"][0]) - now


def test_addresses_are_good_for_at_least_half_of_their_time_and_made_anew_after_it() -> None:
    now = NOW - 0.5
    urls, signer = signed_urls(lambda: now)
    made = set()
    for _ in range(3000):
        now += 1.1
        url = urls.of(FOLDER, "320.webp")
        assert 300 <= left(url, now) <= 600
        made.add(url)

    assert signer.count == len(made) == 12


def test_every_process_makes_the_same_addresses() -> None:
    first, second = signed_urls(lambda: NOW)[0], signed_urls(lambda: NOW + 0.9)[0]

    assert [first.of(f"{number:032x}", "a") for number in range(50)] == [
        second.of(f"{number:032x}", "a") for number in range(50)
    ]


def test_addresses_do_not_all_change_at_once() -> None:
    now = float(NOW)
    urls, signer = signed_urls(lambda: now, 1000)
    most = 0
    for _ in range(310):
        before = signer.count
        for number in range(300):
            urls.of(f"{number:032x}", "a")
        most = max(most, signer.count - before) if before else 0
        now += 1

    assert signer.count >= 600
    assert most < 20


def test_a_clock_that_is_set_back_makes_no_address_that_is_not_good_yet() -> None:
    now = float(NOW)
    urls, _ = signed_urls(lambda: now)
    urls.of(FOLDER, "a")
    now -= 10_000

    assert 300 <= left(urls.of(FOLDER, "a"), now) <= 600


def test_so_many_addresses_are_remembered_and_no_more() -> None:
    urls, signer = signed_urls(lambda: NOW, most=10)
    for number in range(11):
        urls.of(f"{number:032x}", "a")
    assert signer.count == 11

    urls.of(f"{10:032x}", "a")
    urls.of(f"{1:032x}", "a")
    assert signer.count == 11
    urls.of(f"{0:032x}", "a")
    assert signer.count == 12


def test_threads_share_the_addresses() -> None:
    urls, _ = signed_urls(lambda: NOW, most=5)

    def some(_: int) -> list[str]:
        return [urls.of(f"{number:032x}", "a") for number in range(20)]

    with ThreadPoolExecutor(8) as threads:
        assert len(set(map(tuple, threads.map(some, range(50))))) == 1


def test_public_addresses_are_not_signed(some_credentials: None) -> None:
    with closing(S3Blobs(BUCKET, "posts", public_url="https://images.example.com/posts/")) as store:
        assert store.url(FOLDER, "320.webp") == f"https://images.example.com/posts/{FOLDER}/320.webp"


def test_addresses_at_amazon_name_the_bucket_and_its_region(
    some_credentials: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-1")
    with closing(S3Blobs(BUCKET, "posts")) as store:
        url = store.url(FOLDER, "320.webp")
        assert url.startswith(
            f"https://{BUCKET}.s3.eu-west-1.amazonaws.com/posts/{FOLDER}/320.webp?X-Amz-Algorithm=AWS4"
        )
        assert store.upload_target(FOLDER, "upload", "image/png", 5, 60) is not None
        assert store.serves_files is None


async def test_an_upload_is_taken_as_it_was_promised_and_in_no_other_way(store: S3Blobs) -> None:
    target = store.upload_target(FOLDER, "upload", "image/png", 5, 60)
    assert target is not None
    key = target.fields["key"]

    assert await upload(target, b"1234") >= 400
    assert await upload(target, b"123456") >= 400
    assert await upload(target, b"12345", Content_Type="text/html") >= 400
    assert await upload(target, b"12345", key=key.replace("upload", "320.webp")) >= 400
    assert await upload(target, b"12345", key=key.replace(FOLDER, FOLDER[::-1])) >= 400
    assert list(store.folders()) == []
    assert await upload(target, b"12345") == 204
    assert await store.fetch(FOLDER, "upload", 5) == b"12345"
    assert (await ask("GET", store.url(FOLDER, "upload"))).headers["Content-Type"] == "image/png"


async def test_an_upload_that_comes_too_late_is_refused(store: S3Blobs) -> None:
    target = store.upload_target(FOLDER, "upload", "image/png", 5, -1)
    assert target is not None

    assert await upload(target, b"12345") >= 400
    assert list(store.folders()) == []


async def test_what_others_have_in_the_bucket_is_left_alone(s3_server: S3Server, store: S3Blobs, prefix: str) -> None:
    client = s3_server.client()
    keys = [
        f"{prefix}/{FOLDER}/a/b",
        f"{prefix}/notes.txt",
        f"{prefix}/{FOLDER}x/320.webp",
        f"{prefix}/{FOLDER}/Notes.txt",
    ]
    for key in keys:
        client.put_object(Bucket=BUCKET, Key=key, Body=b"mine")
    assert list(store.folders()) == []
    await store.put(FOLDER, [IMAGE])

    assert [(each.name, each.blobs) for each in store.folders()] == [(FOLDER, {"320.webp"})]
    await store.delete(FOLDER)
    left = client.list_objects_v2(Bucket=BUCKET, Prefix=f"{prefix}/")["Contents"]
    assert sorted(each["Key"] for each in left) == sorted(key for key in keys if f"/{FOLDER}/" not in key)


async def test_all_of_a_folder_is_deleted_however_much_it_is(
    s3_server: S3Server, credentials: None, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3_blobs, "_KEYS_A_REQUEST", 4)
    with closing(S3Blobs(BUCKET, prefix, endpoint=s3_server.endpoint, keys_a_page=3)) as store:
        await store.put(FOLDER, [IMAGE._replace(name=f"{number}.webp") for number in range(10)])
        await store.delete(FOLDER)

        assert list(store.folders()) == []


@pytest.mark.parametrize(
    ("environment", "bucket", "to_do"),
    [
        ({"AWS_SECRET_ACCESS_KEY": "WRONGSECRET"}, BUCKET, "AWS_SECRET_ACCESS_KEY"),
        ({"AWS_ACCESS_KEY_ID": "WRONGKEY"}, BUCKET, "AWS_ACCESS_KEY_ID"),
        ({}, "missing", "INSTA_MEDIA_URL"),
    ],
    ids=["wrong secret", "wrong key", "no bucket"],
)
async def test_what_an_operator_has_to_set_stands_in_the_log(
    s3_server: S3Server,
    credentials: None,
    monkeypatch: pytest.MonkeyPatch,
    environment: Mapping[str, str],
    bucket: str,
    to_do: str,
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with closing(S3Blobs(bucket, endpoint=s3_server.endpoint)) as store:
        for call in CALLS.values():
            with capture_logs() as lines, pytest.raises(BlobStoreAway) as away:
                await call(store)
            assert all(line["log_level"] == "error" and to_do in line["to_do"] for line in lines)
            assert lines
            for secret in (s3_server.secret_key, s3_server.access_key, *environment.values()):
                assert secret not in f"{lines} {away.value}"


BEHAVIOURS = {
    "500": bad_s3.answering(500, "InternalError"),
    "502": bad_s3.answering(502),
    "404": bad_s3.answering(404),
    "503": bad_s3.answering(503, "SlowDown"),
    "silent": bad_s3.silent,
    "dripping": bad_s3.dripping,
}


@pytest.mark.parametrize("behaviour", BEHAVIOURS)
async def test_calls_end_in_time_while_s3_is_away(some_credentials: None, behaviour: str) -> None:
    async with bad_s3.serving(BEHAVIOURS[behaviour]) as address:
        with closing(S3Blobs(BUCKET, endpoint=address, patience=IMPATIENT)) as store, capture_logs() as lines:
            began = time.monotonic()

            outcomes = await asyncio.gather(*(call(store) for call in CALLS.values()), return_exceptions=True)

    assert {type(outcome) for outcome in outcomes} == {BlobStoreAway}
    assert time.monotonic() - began < 8
    assert {line["event"] for line in lines} <= {"S3 refused", "S3 failed", "S3 is too slow"}
    assert len(lines) >= len(CALLS)
    assert "SECRETKEY" not in f"{lines} {outcomes}"


@pytest.mark.parametrize("behaviour", [bad_s3.dripping_body, bad_s3.cut_off, bad_s3.garbled])
async def test_what_does_not_come_to_its_end_is_no_blob(some_credentials: None, behaviour: bad_s3.Behaviour) -> None:
    async with bad_s3.serving(behaviour) as address:
        with closing(S3Blobs(BUCKET, endpoint=address, patience=IMPATIENT)) as store:
            began = time.monotonic()
            if behaviour is bad_s3.garbled:
                calls = [CALLS["folders"](store), CALLS["delete"](store)]
            else:
                calls = [CALLS["read"](store), CALLS["fetch"](store)]

            outcomes = await asyncio.gather(*calls, return_exceptions=True)

    assert {type(outcome) for outcome in outcomes} == {BlobStoreAway}
    assert time.monotonic() - began < 8


async def test_s3_that_says_nothing_is_given_up_on_before_the_call_is(some_credentials: None) -> None:
    async with bad_s3.serving(bad_s3.silent) as address:
        with closing(S3Blobs(BUCKET, endpoint=address, patience=Patience(read=0.2, call=60))) as store:
            began = time.monotonic()
            outcomes = await asyncio.gather(*(call(store) for call in CALLS.values()), return_exceptions=True)

    assert {type(outcome) for outcome in outcomes} == {BlobStoreAway}
    assert time.monotonic() - began < 20


async def test_calls_fail_where_nobody_listens(some_credentials: None) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"http://127.0.0.1:{taken.getsockname()[1]}"
    with closing(S3Blobs(BUCKET, endpoint=address, patience=Patience())) as store, capture_logs():
        outcomes = await asyncio.gather(*(call(store) for call in CALLS.values()), return_exceptions=True)

    assert {type(outcome) for outcome in outcomes} == {BlobStoreAway}


@pytest.mark.parametrize(
    "answer",
    [bad_s3.answering(507), bad_s3.answering(403, "QuotaExceeded"), bad_s3.answering(507, "XMinioStorageFull")],
)
async def test_a_service_without_space_is_full(some_credentials: None, answer: bad_s3.Behaviour) -> None:
    async with bad_s3.serving(answer) as address:
        with closing(S3Blobs(BUCKET, endpoint=address, patience=IMPATIENT)) as store, pytest.raises(BlobStoreFull):
            await store.put(FOLDER, [IMAGE])


async def test_a_missing_blob_is_told_without_a_line_in_the_log(store: S3Blobs) -> None:
    with capture_logs() as lines, pytest.raises(BlobMissing):
        await store.fetch(FOLDER, "320.webp", 10)

    assert lines == []
