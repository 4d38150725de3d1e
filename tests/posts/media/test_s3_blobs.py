"""Blobs in S3: its addresses and uploads, and what becomes of calls while it is away."""

from __future__ import annotations

import asyncio
import base64
import calendar
import datetime
import http.client
import http.server
import json
import secrets
import socket
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing, closing, contextmanager
from typing import Any, NamedTuple
from urllib.parse import parse_qs, parse_qsl, urlsplit

import boto3
import botocore.auth
import botocore.credentials
import botocore.signers
import pytest
from botocore.awsrequest import AWSRequest
from botocore.config import Config
from structlog.testing import capture_logs

from services.posts.media import s3_blobs
from services.posts.media import signed_urls as signing
from services.posts.media.blob_store import Blob, BlobMissing, BlobStoreAway, BlobStoreFull, UploadTarget
from services.posts.media.s3_blobs import Patience, S3Blobs
from services.posts.media.signed_urls import KeptCredentials, SignedUrls, Signer
from tests.people import until
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


class CountingSigner(Signer):
    """Counts what it signs."""

    count = 0

    def url(self, *of: Any) -> str:
        self.count += 1
        return super().url(*of)


def signed_urls(clock: Callable[[], float], most: int = 100) -> tuple[SignedUrls, CountingSigner]:
    signer = CountingSigner(BUCKET, "https://images.example.com", "us-east-1")
    credentials = KeptCredentials(botocore.credentials.Credentials("ACCESSKEY", "SECRETKEY"))
    return SignedUrls(signer, credentials, 600, clock, most), signer


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


def at(monkeypatch: pytest.MonkeyPatch, moment: int) -> None:
    """Let botocore sign as of a moment."""
    now = datetime.datetime.fromtimestamp(moment, datetime.UTC)
    for module in (botocore.auth, botocore.signers):
        monkeypatch.setattr(module, "get_current_datetime", lambda: now)


def signed_by_policy(fields: Mapping[str, str]) -> tuple[dict[str, str], str, list[str]]:
    """The fields of a form but for its signature, when it expires, and what it asks for."""
    policy = json.loads(base64.b64decode(fields["policy"]))
    others = {name: value for name, value in fields.items() if name not in ("policy", "x-amz-signature")}
    return others, policy["expiration"], sorted(map(json.dumps, policy["conditions"]))


@pytest.mark.parametrize("token", ["", "a/b+c=="], ids=["lasting", "temporary"])
@pytest.mark.parametrize(
    ("bucket", "endpoint", "region"),
    [
        (BUCKET, "", "us-east-1"),
        (BUCKET, "", "eu-west-1"),
        ("images.example.com", "", "eu-west-1"),
        (BUCKET, "http://127.0.0.1:8333", "us-east-1"),
        (BUCKET, "https://s3.example.com:443", "us-east-1"),
        (BUCKET, "http://[::1]:80/under/it", "us-east-1"),
    ],
)
def test_signatures_are_those_of_botocore(
    some_credentials: None, monkeypatch: pytest.MonkeyPatch, bucket: str, endpoint: str, region: str, token: str
) -> None:
    monkeypatch.setenv("AWS_DEFAULT_REGION", region)
    if token:
        monkeypatch.setenv("AWS_SESSION_TOKEN", token)
    path_style = bool(endpoint) or "." in bucket
    config = Config(signature_version="s3v4", s3={"addressing_style": "path" if path_style else "virtual"})
    client = boto3.Session().client("s3", endpoint_url=endpoint or None, config=config)
    with closing(S3Blobs(bucket, "a/b-c_d", endpoint=endpoint, url_seconds=600, clock=lambda: NOW)) as store:
        url = store.url(FOLDER, "320.webp")
        target = store.upload_target(FOLDER, "upload", "image/png", 5, 60)
    assert target is not None

    at(monkeypatch, int(left(url, 0)) - 600)
    expected = client.generate_presigned_url(
        "get_object", Params={"Bucket": bucket, "Key": f"a/b-c_d/{FOLDER}/320.webp"}, ExpiresIn=600
    )
    assert url.partition("?")[0] == expected.partition("?")[0]
    assert sorted(parse_qsl(urlsplit(url).query)) == sorted(parse_qsl(urlsplit(expected).query))
    at(monkeypatch, NOW)
    form = client.generate_presigned_post(
        bucket,
        f"a/b-c_d/uploads/{FOLDER}/upload",
        Fields={"Content-Type": "image/png"},
        Conditions=[{"Content-Type": "image/png"}, ["content-length-range", 5, 5]],
        ExpiresIn=60,
    )
    assert target.url == form["url"]
    assert signed_by_policy(target.fields) == signed_by_policy(form["fields"])
    signer = botocore.auth.S3SigV4PostAuth(boto3.Session().get_credentials(), "s3", region)
    request = AWSRequest()
    request.context["timestamp"] = target.fields["x-amz-date"]
    assert signer.signature(target.fields["policy"], request) == target.fields["x-amz-signature"]


class Role:
    """What a machine's role gives: other credentials each time, each good for so many seconds. It can be held up.

    Attributes:
        given: For how many seconds they were good, by access key.
    """

    def __init__(self) -> None:
        self.seconds = 300
        self.is_failing = False
        self.given: dict[str, int] = {}
        self.waiting = 0
        self.may_answer = threading.Event()
        self.may_answer.set()

    async def is_held_up(self) -> bool:
        return self.waiting > 0

    def answer(self) -> bytes:
        self.waiting += 1
        assert self.may_answer.wait(60)
        self.waiting -= 1
        key, seconds = f"KEY{len(self.given)}", self.seconds
        self.given[key] = seconds
        expiry = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=seconds)
        keys = {"AccessKeyId": key, "SecretAccessKey": "SECRETKEY", "Token": "TOKEN"}
        return json.dumps({**keys, "Expiration": expiry.strftime("%Y-%m-%dT%H:%M:%SZ")}).encode()


@contextmanager
def giving(role: Role) -> Iterator[str]:
    """A server as containers of Amazon have it. Its address."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = role.answer()
            self.send_response(500 if role.is_failing else 200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/role"
        finally:
            role.may_answer.set()
            server.shutdown()
            thread.join()


@pytest.fixture
def role(monkeypatch: pytest.MonkeyPatch) -> Iterator[Role]:
    """The environment has the credentials of a role, which are looked at all the time."""
    for name, value in without_credentials().items():
        monkeypatch.setenv(name, value)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(signing, "_PAUSE_SECONDS", 0.02)
    role = Role()
    with giving(role) as address:
        monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", address)
        yield role


def access_key(url: str) -> str:
    return parse_qs(urlsplit(url).query)["X-Amz-Credential"][0].partition("/")[0]


async def test_addresses_are_signed_anew_with_new_credentials_and_promise_no_more_than_these(role: Role) -> None:
    with closing(S3Blobs(BUCKET, url_seconds=3600)) as store:
        before = access_key(store.url(FOLDER, "320.webp"))
        assert 200 < (store.url_seconds or 0) <= 300
        role.seconds = 7200

        async def seconds() -> int:
            key = access_key(store.url(FOLDER, "320.webp"))
            seconds = store.url_seconds
            assert seconds is not None
            assert seconds <= role.given[key]
            return seconds

        await until(seconds, 1800)
        assert access_key(store.url(FOLDER, "320.webp")) != before
        assert await seconds() == 1800


async def test_addresses_that_are_being_handed_out_when_new_credentials_come_are_promised_no_more_than_the_old(
    role: Role, monkeypatch: pytest.MonkeyPatch
) -> None:
    with closing(S3Blobs(BUCKET, url_seconds=3600)) as store:
        role.may_answer.clear()
        await until(role.is_held_up)
        # The new ones are the last.
        monkeypatch.setattr(signing, "_PAUSE_SECONDS", 3600)
        role.seconds = 7200
        role.may_answer.set()

        async def seconds_of_credentials() -> int:
            return role.given[access_key(store.url(FOLDER, "320.webp"))]

        await until(seconds_of_credentials, 7200)
        assert store.url_seconds is not None
        assert store.url_seconds <= 300


async def test_nothing_waits_while_credentials_are_renewed(role: Role) -> None:
    with closing(S3Blobs(BUCKET, url_seconds=3600)) as store:
        role.may_answer.clear()
        await until(role.is_held_up)
        began = time.monotonic()
        for number in range(10):
            assert access_key(store.url(FOLDER, f"{number}.webp")) in role.given
            target = store.upload_target(FOLDER, "upload", "image/png", 5, 60)
            assert target is not None
            assert target.fields["x-amz-security-token"] == "TOKEN"
            assert (store.url_seconds or 0) <= 300
        # So long botocore waits for an answer.
        assert time.monotonic() - began < 2
        assert await role.is_held_up()


async def test_credentials_that_cannot_be_renewed_are_told_and_asked_for_again(role: Role) -> None:
    with capture_logs() as lines, closing(S3Blobs(BUCKET)) as store:
        role.is_failing = True

        async def is_told() -> bool:
            return any(line["event"] == "credentials of S3 cannot be renewed" for line in lines)

        await until(is_told, True)
        assert "SECRETKEY" not in str(lines)
        role.seconds, role.is_failing = 7200, False

        async def seconds() -> int | None:
            return store.url_seconds

        await until(seconds, 1800)


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


async def test_an_upload_is_taken_as_it_was_promised_and_in_no_other_way(store: S3Blobs) -> None:
    target = store.upload_target(FOLDER, "upload", "image/png", 5, 60)
    assert target is not None
    key = target.fields["key"]

    assert await upload(target, b"1234") >= 400
    assert await upload(target, b"123456") >= 400
    assert await upload(target, b"12345", Content_Type="text/html") >= 400
    assert await upload(target, b"12345", key=key.removesuffix("upload") + "320.webp") >= 400
    assert await upload(target, b"12345", key=key.replace("uploads/", "")) >= 400
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


async def test_an_upload_is_not_where_images_are_public(s3_server: S3Server, credentials: None, prefix: str) -> None:
    public = f"{s3_server.endpoint}/{BUCKET}/{prefix}"
    with closing(S3Blobs(BUCKET, prefix, endpoint=s3_server.endpoint, public_url=public)) as store:
        target = store.upload_target(FOLDER, "upload", "image/png", 5, 60)
        assert target is not None
        assert await upload(target, b"12345") == 204
        await store.put(FOLDER, [IMAGE])

        listed = s3_server.client().list_objects_v2(Bucket=BUCKET, Prefix=f"{prefix}/")["Contents"]
        keys = {f"{prefix}/{FOLDER}/320.webp", f"{prefix}/uploads/{FOLDER}/upload"}
        assert {each["Key"] for each in listed} == keys
        assert store.url(FOLDER, "320.webp") == f"{public}/{FOLDER}/320.webp"
        assert (await ask("GET", store.url(FOLDER, "upload"))).body == b"12345"


async def test_folders_that_have_an_upload_are_listed_in_order_and_deleted(
    s3_server: S3Server, credentials: None, prefix: str
) -> None:
    first, second, third = (digit * 32 for digit in "5af")
    uploaded = Blob("upload", "image/png", b"12345")
    with closing(S3Blobs(BUCKET, prefix, endpoint=s3_server.endpoint, keys_a_page=1)) as store:
        await store.put(first, [uploaded])
        await store.put(second, [uploaded, IMAGE])
        await store.put(third, [IMAGE])

        listed = [(each.name, each.blobs, each.size) for each in store.folders()]
        assert listed == [
            (first, {"upload"}, 5),
            (second, {"upload", "320.webp"}, 6005),
            (third, {"320.webp"}, 6000),
        ]
        for folder in (first, second):
            await store.delete(folder)
        assert [each.name for each in store.folders()] == [third]


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
