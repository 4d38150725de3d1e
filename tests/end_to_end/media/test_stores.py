"""Images whose store is a bucket of S3, is away, or is full."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import grpc
import pytest
import pytest_asyncio
from PIL import Image

from insta.gateway.v1 import media_pb2
from tests import disks
from tests.deletions import delete_account, delete_post, erased
from tests.end_to_end.media.calls import (
    MEDIA_LIMIT,
    UPLOAD_INCOMPLETE,
    delete,
    finish_upload,
    post_form,
    read,
    show_as_avatar,
    start_upload,
    told,
)
from tests.images import Hanging, download, folders, give_images, held_for, load, nothing_kept, rows_of
from tests.people import People, Person, failure, small_picture, until
from tests.posts.media import bad_s3, s3_server
from tests.posts.media.drawing import encoded, opened, picture
from tests.posts.media.s3_server import BUCKET, S3Server
from tests.running import RunningSuite, running

STORE_UNAVAILABLE = (grpc.StatusCode.UNAVAILABLE, "MEDIA_STORE_UNAVAILABLE")
STORAGE_FULL = (grpc.StatusCode.RESOURCE_EXHAUSTED, "STORAGE_FULL")
UPLOAD_NOT_FOUND = (grpc.StatusCode.NOT_FOUND, "UPLOAD_NOT_FOUND")
UPLOAD_MISSING = (grpc.StatusCode.FAILED_PRECONDITION, "UPLOAD_MISSING")

pytestmark = pytest.mark.inside


# A bucket.


@pytest.fixture(scope="module")
def bucket(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with s3_server.serving(tmp_path_factory.mktemp("s3")) as server:
        yield server


@pytest.fixture(scope="module")
def in_bucket(bucket: S3Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningSuite]:
    """A suite that keeps images in a bucket."""
    settings = {
        **bucket.environment,
        "INSTA_MEDIA_URL": f"s3://{BUCKET}/suite",
        "INSTA_MEDIA_S3_ENDPOINT": bucket.endpoint,
    }
    with running("together", tmp_path_factory.mktemp("bucket") / "var", **settings) as suite:
        yield suite


@pytest_asyncio.fixture
async def dan(in_bucket: RunningSuite) -> AsyncIterator[Person]:
    """Somebody of the suite with a bucket."""
    people = People(in_bucket.address)
    yield await people.join()
    await people.channel.close()


def keys(bucket: S3Server) -> set[str]:
    """All that the bucket has."""
    return {found["Key"] for found in bucket.client().list_objects_v2(Bucket=BUCKET).get("Contents", ())}


async def test_images_in_a_bucket_are_had_over_both_ways_until_they_are_deleted(
    bucket: S3Server, in_bucket: RunningSuite, dan: Person
) -> None:
    media = await dan.upload(encoded(picture(400, 300), "JPEG"), "image/jpeg")
    await dan.post(media_ids=[media.id])

    assert media.url_expire_time.ToSeconds() > time.time() + 60
    for variant in media.variants:
        downloaded = await download(dan, media.id, max_width=variant.width, content_type=variant.content_type)
        loaded = load(variant.url)
        assert (loaded.status, loaded.content_type) == (200, variant.content_type)
        assert downloaded.data == loaded.body
        assert len(loaded.body) == variant.size
        assert opened(loaded.body).size == (variant.width, variant.height)
        # Without its signature nobody has it.
        assert load(variant.url.partition("?")[0]).status == 403
    unused = await dan.upload()
    await show_as_avatar(dan, unused.id)
    boss = await People(in_bucket.address).superuser()
    await delete_account(dan)
    await erased(boss, dan.id)
    for variant in (*media.variants, *unused.variants):
        assert load(variant.url).status == 404


async def test_a_file_is_uploaded_straight_to_the_bucket_and_made_into_an_image(
    bucket: S3Server, in_bucket: RunningSuite, dan: Person
) -> None:
    before = keys(bucket)
    data = encoded(picture(400, 300), "PNG")
    started = await start_upload(dan, data)
    assert time.time() < started.expire_time.ToSeconds() <= time.time() + 3700
    assert told(await failure(finish_upload(dan, started))) == UPLOAD_MISSING

    posted = post_form(started, data)
    assert posted.status in (200, 201, 204), posted
    media = await finish_upload(dan, started, alt_text="Four")

    assert (media.owner_id, media.width, media.height, media.content_type) == (dan.id, 400, 300, "image/png")
    assert media.alt_text == "Four"
    assert (await read(dan, media.id)).variants == media.variants
    for variant in media.variants:
        loaded = load(variant.url)
        assert (loaded.status, len(loaded.body), loaded.content_type) == (200, variant.size, variant.content_type)
    names = {key.rpartition("/")[2] for key in keys(bucket) - before}
    assert names >= {"320.webp", "320.jpg", "400.webp", "400.jpg"}

    async def originals() -> set[str]:
        return {key for key in keys(bucket) - before if key.endswith("upload")}

    await until(originals, set())
    assert told(await failure(finish_upload(dan, started))) == UPLOAD_NOT_FOUND
    assert rows_of(in_bucket, dan) == 1


async def test_an_upload_is_finished_once_and_whoever_asks_again_by_the_same_name_gets_the_image(
    in_bucket: RunningSuite, dan: Person
) -> None:
    data = small_picture()
    started = await start_upload(dan, data, request_id="start")
    assert await start_upload(dan, data, request_id="start") == started
    post_form(started, data)

    named = await asyncio.gather(*(finish_upload(dan, started, request_id="finish") for _ in range(3)))

    assert named == [named[0]] * 3
    assert await finish_upload(dan, started, request_id="finish") == named[0]
    started = await start_upload(dan, data)
    post_form(started, data)
    answers = await asyncio.gather(*(finish_upload(dan, started) for _ in range(3)), return_exceptions=True)
    assert sum(isinstance(answer, media_pb2.Media) for answer in answers) == 1
    assert rows_of(in_bucket, dan) == 2

    async def held() -> int:
        return held_for(in_bucket, dan)

    await until(held, 0)


async def test_who_was_let_start_an_upload_has_room_to_finish_it(in_bucket: RunningSuite, dan: Person) -> None:
    give_images(in_bucket, dan, 199)
    data = small_picture()
    started = await start_upload(dan, data)
    post_form(started, data)

    assert told(await failure(start_upload(dan, data))) == MEDIA_LIMIT
    assert (await finish_upload(dan, started)).width == 4
    assert told(await failure(start_upload(dan, data))) == MEDIA_LIMIT
    assert rows_of(in_bucket, dan) == 200


async def test_an_upload_is_nobody_elses(in_bucket: RunningSuite, dan: Person) -> None:
    people = People(in_bucket.address)
    other = await people.join()
    data = small_picture()
    started = await start_upload(dan, data)
    post_form(started, data)

    assert told(await failure(finish_upload(other, started))) == UPLOAD_NOT_FOUND
    missing = await failure(other.media.FinishUpload(media_pb2.FinishUploadRequest(upload_id=2**40)))
    assert told(missing) == UPLOAD_NOT_FOUND
    assert (await finish_upload(dan, started)).owner_id == dan.id
    await people.channel.close()


async def test_the_bucket_refuses_what_was_not_announced(bucket: S3Server, dan: Person) -> None:
    data = small_picture()
    started = await start_upload(dan, data)
    before = keys(bucket)

    for refused in (
        post_form(started, data + b"x"),
        post_form(started, data[:-1]),
        post_form(started, b""),
        post_form(started, data, **{"Content-Type": "text/html"}),
        post_form(started, data, key="suite/another/place"),
    ):
        assert 400 <= refused.status < 500, refused
    # What others have finished is deleted meanwhile.
    assert keys(bucket) <= before
    assert told(await failure(finish_upload(dan, started))) == UPLOAD_MISSING


async def test_after_a_broken_image_a_good_one_is_uploaded_in_its_place(dan: Person) -> None:
    good = small_picture()
    broken = good[:20] + bytes(len(good) - 20)
    started = await start_upload(dan, good)

    for data, reason in (
        (broken, "IMAGE_DAMAGED"),
        (b"<html>".ljust(len(good)), "IMAGE_FORMAT_UNKNOWN"),
        (encoded(Image.new("RGB", (1, 1)), "GIF").ljust(len(good), b"\0"), "IMAGE_FORMAT_DIFFERS"),
    ):
        post_form(started, data)
        failed = await failure(finish_upload(dan, started))
        assert told(failed) == (grpc.StatusCode.INVALID_ARGUMENT, reason)
    post_form(started, good)

    assert (await finish_upload(dan, started)).width == 4


async def test_what_somebody_else_put_in_place_of_the_file_is_not_read(bucket: S3Server, dan: Person) -> None:
    """Whoever may write to the bucket otherwise is not believed either."""
    data = small_picture()
    started = await start_upload(dan, data)
    bucket.client().put_object(Bucket=BUCKET, Key=started.fields["key"], Body=bytes(1_000_000))

    assert told(await failure(finish_upload(dan, started))) == UPLOAD_INCOMPLETE


async def test_uploads_that_were_started_go_with_their_account(
    bucket: S3Server, in_bucket: RunningSuite, dan: Person
) -> None:
    data = small_picture()
    started = await start_upload(dan, data)
    post_form(started, data)
    boss = await People(in_bucket.address).superuser()

    await delete_account(dan)
    await erased(boss, dan.id)

    assert started.fields["key"] not in keys(bucket)
    assert (await failure(finish_upload(dan, started))).code is grpc.StatusCode.UNAUTHENTICATED


# A bucket that is away.


class Away:
    """A store that does what it is told, and its suite."""

    def __init__(self, suite: RunningSuite) -> None:
        self.suite = suite
        self.behaviour: bad_s3.Behaviour = bad_s3.silent


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def away(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Away]:
    held: list[Away] = []

    async def behave(writer: asyncio.StreamWriter) -> None:
        await held[0].behaviour(writer)

    async with bad_s3.serving(behave) as endpoint:
        settings = {
            **s3_server.without_credentials(),
            "AWS_ACCESS_KEY_ID": "KEYID",
            "AWS_SECRET_ACCESS_KEY": "SECRETKEY",
            "INSTA_MEDIA_URL": "s3://bucket",
            "INSTA_MEDIA_S3_ENDPOINT": endpoint,
        }
        with running("together", tmp_path_factory.mktemp("away") / "var", **settings) as suite:
            held.append(Away(suite))
            yield held[0]


@pytest.mark.parametrize(
    ("behaviour", "expected"),
    [
        (bad_s3.answering(500, "InternalError"), STORE_UNAVAILABLE),
        (bad_s3.answering(503, "SlowDown"), STORE_UNAVAILABLE),
        (bad_s3.answering(403, "AccessDenied"), STORE_UNAVAILABLE),
        (bad_s3.answering(404, "NoSuchBucket"), STORE_UNAVAILABLE),
        (bad_s3.answering(502), STORE_UNAVAILABLE),
        (bad_s3.answering(507, "XMinioStorageFull"), STORAGE_FULL),
    ],
    ids=["500", "503", "403", "404", "502", "507"],
)
async def test_an_upload_to_a_store_that_fails_is_refused_and_nothing_of_the_store_is_told(
    away: Away, behaviour: bad_s3.Behaviour, expected: tuple[grpc.StatusCode, str]
) -> None:
    away.behaviour = behaviour
    people = People(away.suite.address)
    person = await people.join()
    began = time.monotonic()

    failed = await failure(person.upload())

    assert told(failed) == expected
    assert failed.retry_after is not None
    assert failed.retry_after > 0
    assert time.monotonic() - began < 10
    for secret in ("SECRETKEY", "KEYID", "bucket", "127.0.0.1", "InternalError", "Traceback"):
        assert secret not in failed.text
    assert rows_of(away.suite, person) == 0
    await people.channel.close()


async def test_while_the_store_does_not_answer_all_else_does(away: Away) -> None:
    away.behaviour = bad_s3.silent
    people = People(away.suite.address)
    person = await people.join()
    written = await person.post()
    uploading = [asyncio.ensure_future(failure(person.media.UploadMedia(_small(), timeout=3))) for _ in range(3)]

    slowest = 0.0
    while not all(each.done() for each in uploading):
        began = time.monotonic()
        assert (await person.see(written)).id == written.id
        await person.like(written)
        slowest = max(slowest, time.monotonic() - began)
        await asyncio.sleep(0.02)

    assert slowest < 1
    assert {each.result().code for each in uploading} == {grpc.StatusCode.DEADLINE_EXCEEDED}
    assert rows_of(away.suite, person) == 0
    # What they held is free again.
    away.behaviour = bad_s3.answering(500, "InternalError")

    async def reasons() -> set[tuple[grpc.StatusCode, str]]:
        return {told(failed) for failed in await asyncio.gather(*(failure(person.upload()) for _ in range(4)))}

    await until(reasons, {STORE_UNAVAILABLE})
    await people.channel.close()


@pytest.mark.soak
@pytest.mark.parametrize("behaviour", [bad_s3.silent, bad_s3.dripping], ids=["silent", "dripping"])
async def test_an_upload_to_a_store_that_never_answers_ends_by_itself(away: Away, behaviour: bad_s3.Behaviour) -> None:
    away.behaviour = behaviour
    people = People(away.suite.address)
    person = await people.join()
    began = time.monotonic()

    failed = await failure(person.media.UploadMedia(_small(), timeout=100))

    assert told(failed) == STORE_UNAVAILABLE
    assert time.monotonic() - began < 25
    await people.channel.close()


def _small() -> Iterator[media_pb2.UploadMediaRequest]:
    data = small_picture()
    yield media_pb2.UploadMediaRequest(header=media_pb2.UploadHeader(content_type="image/png", size=len(data)))
    yield media_pb2.UploadMediaRequest(chunk=data)


# Files.


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 1 MB, for images only."""
    with disks.small(tmp_path / "disk", 1) as folder:
        yield folder


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


async def test_on_a_full_disk_uploads_are_refused_and_all_else_goes_on(small_disk: Path, tmp_path: Path) -> None:
    with running("together", tmp_path / "var", INSTA_MEDIA_URL=f"file:{small_disk}") as suite:
        people = People(suite.address)
        person = await people.join()
        shown = await person.upload()
        written = await person.post(media_ids=[shown.id])
        ballast = disks.fill_up(small_disk)

        for _ in range(5):
            failed = await failure(person.upload())
            assert told(failed) == STORAGE_FULL
            assert failed.retry_after is not None

        assert await person.see(written) == written
        assert (await download(person, shown.id)).data == load(shown.variants[0].url).body
        assert rows_of(suite, person) == 1
        ballast.unlink()
        media = await person.upload()
        await delete(person, media.id)
        await delete_post(person, written)

        async def left() -> tuple[int, int, list[str]]:
            return rows_of(suite, person), held_for(suite, person), names(small_disk)

        await until(left, (0, 0, [".lock"]))
        await people.channel.close()


async def test_a_store_that_cannot_be_written_to_is_away(tmp_path: Path) -> None:
    with running("together", tmp_path / "var") as suite:
        people = People(suite.address)
        person = await people.join()
        kept = await person.upload()
        store = Path(suite.environment["INSTA_DATA"]) / "media"
        elsewhere = store.with_name("elsewhere")
        store.rename(elsewhere)

        assert told(await failure(person.upload())) == STORE_UNAVAILABLE
        assert told(await failure(download(person, kept.id))) == STORE_UNAVAILABLE
        assert await read(person, kept.id) == kept

        elsewhere.rename(store)
        assert (await person.upload()).width == 4
        assert (await download(person, kept.id)).variant == kept.variants[0]
        assert len(folders(suite)) == 2
        await people.channel.close()


async def test_a_suite_that_stops_ends_its_uploads(tmp_path: Path) -> None:
    with running("together", tmp_path / "var", INSTA_DRAIN_SECONDS="1") as suite:
        people = People(suite.address)
        person = await people.join()
        hanging = Hanging(person)
        await hanging.under_way.wait()
        began = time.monotonic()
        assert suite.process is not None
        suite.process.terminate()

        failed = await failure(hanging.call)

        assert failed.code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)
        assert suite.process.wait(20) == 0
        assert time.monotonic() - began < 10
        await people.channel.close()
    with running("together", tmp_path / "var") as suite:
        await nothing_kept(suite, person)
