"""`insta media`: images from a terminal, and the store of images without what nothing refers to."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import subprocess
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from pathlib import Path

import pytest
import pytest_asyncio
from PIL import Image

from insta.gateway.v1 import media_pb2
from tests.databases import copied
from tests.people import People, Person, small_picture, until
from tests.running import RunningSuite, insta_here, running
from tests.suite.auditing import audited, change, differences, read
from tests.suite.image_store import DAY_SECONDS, folder_of, leave_unknown, store_of, stored, suite_with_images

LATER = 1_000_000 * (DAY_SECONDS + 60)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def people(together: RunningSuite) -> AsyncIterator[People]:
    made = People(together.address)
    yield made
    await made.channel.close()


@pytest_asyncio.fixture
async def eve(people: People) -> Person:
    return await people.join(first_name="Eve")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Mapping[str, str], list[str]]:
    """The environment of a suite that is stopped, and the folders of its images: two that a post shows, and three that
    nothing does. Tests copy what they change."""
    return suite_with_images(tmp_path_factory.mktemp("made") / "var")


@pytest.fixture
def stopped(made: tuple[Mapping[str, str], list[str]], tmp_path: Path) -> tuple[Mapping[str, str], list[str]]:
    """The same with data of the test's own."""
    given, folders = made
    return copied(given, tmp_path / "data"), folders


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "beach.png"
    path.write_bytes(small_picture())
    return path


def gc(environment: Mapping[str, str], *options: str) -> subprocess.CompletedProcess[str]:
    return insta_here("media", "gc", *options, environment=environment)


def table(said: subprocess.CompletedProcess[str]) -> dict[str, tuple[int, str]]:
    """The bytes of each folder that is listed, and why it is."""
    lines = re.findall(r"^ +([0-9a-f]{32}) +([\d,]+) +\d{4}-\d\d-\d\d \d\d:\d\d +(.+?) *$", said.stdout, re.MULTILINE)
    return {folder: (int(size.replace(",", "")), why) for folder, size, why in lines}


def expire(environment: Mapping[str, str], folder: str) -> None:
    """Let nothing have shown an image for a day."""
    change(environment, "posts", f"UPDATE media SET expire_time = expire_time - {LATER} WHERE folder = '{folder}'")


def discard(environment: Mapping[str, str], folder: str, in_seconds: float) -> None:
    """Let a folder be held that nothing was made of yet."""
    due_time = int((time.time() + in_seconds) * 1_000_000)
    values = f"('{folder}', 1, {due_time}, FALSE, 0)"
    change(environment, "posts", f"INSERT INTO discard (folder, owner_id, due_time, begun, open_until) VALUES {values}")


def test_what_nothing_refers_to_is_listed_then_deleted_and_the_rest_stays(
    stopped: tuple[Mapping[str, str], list[str]],
) -> None:
    given, folders = stopped
    *shown, unshown, discarded, recent = folders
    expire(given, unshown)
    change(given, "posts", f"DELETE FROM media WHERE folder = '{discarded}'")
    discard(given, discarded, -1)
    under_way = leave_unknown(given, 2 * DAY_SECONDS)
    discard(given, under_way, DAY_SECONDS)
    unknown = leave_unknown(given, 2 * DAY_SECONDS)
    new = leave_unknown(given, 3600)
    before = stored(given)
    rows = read(given, "posts", "SELECT * FROM media"), read(given, "posts", "SELECT * FROM discard")

    listed = gc(given, "--dry-run")

    assert listed.returncode == 0, listed.stderr
    assert {folder: why for folder, (_, why) in table(listed).items()} == {
        unshown: "not shown",
        discarded: "discarded",
        unknown: "unknown",
    }
    assert table(listed)[unknown][0] == 1234
    assert table(listed)[unshown][0] == sum(path.stat().st_size for path in (store_of(given) / unshown).iterdir())
    assert stored(given) == before
    assert rows == (read(given, "posts", "SELECT * FROM media"), read(given, "posts", "SELECT * FROM discard"))
    assert "audit" not in listed.stderr

    done = gc(given)

    assert done.returncode == 0, done.stderr
    assert table(done) == table(listed)
    assert "Deleted 3 folders" in done.stdout
    assert stored(given) == {*shown, recent, under_way, new}
    assert read(given, "posts", "SELECT folder FROM discard") == [(under_way,)]
    assert {folder for (folder,) in read(given, "posts", "SELECT folder FROM media")} == {*shown, recent}
    [line] = [json.loads(line) for line in done.stderr.splitlines() if "images collected" in line]
    assert (line["audit"], line["unshown"], line["discarded"], line["unknown"]) == (True, 1, 1, 1)
    assert "nothing to delete" in gc(given).stdout


def test_a_store_that_the_database_knows_little_of_is_spared(stopped: tuple[Mapping[str, str], list[str]]) -> None:
    given, folders = stopped
    others = {leave_unknown(given, 2 * DAY_SECONDS) for _ in range(6)}

    refused = gc(given)

    assert refused.returncode == 1
    assert "INSTA_MEDIA_URL" in refused.stderr
    assert stored(given) == {*folders, *others}
    assert gc(given, "--force").returncode == 0
    assert stored(given) == set(folders)


@pytest.mark.sqlite
def test_without_a_database_nothing_is_deleted(stopped: tuple[Mapping[str, str], list[str]], tmp_path: Path) -> None:
    given, _ = stopped
    before = stored(given)

    refused = gc({**given, "INSTA_DATA": str(tmp_path / "none"), "INSTA_MEDIA_URL": f"file:{store_of(given)}"})

    assert refused.returncode == 1
    assert "INSTA_DATA" in refused.stderr
    assert stored(given) == before


def test_a_bucket_that_cannot_be_reached_is_told_in_a_sentence(stopped: tuple[Mapping[str, str], list[str]]) -> None:
    given, _ = stopped
    away = {
        **given,
        "INSTA_MEDIA_URL": "s3://nowhere",
        "INSTA_MEDIA_S3_ENDPOINT": "http://127.0.0.1:9",
        "AWS_ACCESS_KEY_ID": "x",
        "AWS_SECRET_ACCESS_KEY": "x",
    }

    for command in (("media", "gc"), ("audit",)):
        said = insta_here(*command, environment=away)
        assert said.returncode == 1
        assert said.stdout == ""
        assert said.stderr.splitlines()[-1].startswith("Error: INSTA_MEDIA_URL=s3://nowhere: ")


async def test_what_is_uploaded_shown_or_under_way_is_neither_deleted_nor_a_difference(tmp_path: Path) -> None:
    """However old the blobs say that they are."""
    done = asyncio.Event()
    with running("together", tmp_path / "var") as suite:
        people = People(suite.address)
        given = suite.environment

        made: list[tuple[Person, int, str]] = []

        async def share() -> None:
            person = await people.join()
            while not done.is_set():
                image, spare = await person.upload(), await person.upload()
                await person.post(media_ids=[image.id])
                await person.media.DeleteMedia(media_pb2.DeleteMediaRequest(media_id=spare.id))
                made.append((person, image.id, folder_of(image)))

        def age() -> None:
            then = time.time() - 2 * DAY_SECONDS
            for folder in stored(given):
                # It may be deleted by now.
                with suppress(FileNotFoundError):
                    for blob in (store_of(given) / folder).iterdir():
                        os.utime(blob, (then, then))

        sharing = [asyncio.create_task(share()) for _ in range(4)]
        try:
            while len(made) < 60:
                await asyncio.to_thread(age)
                collected = await asyncio.to_thread(gc, given, "--force")
                assert collected.returncode == 0, collected.stderr
                assert differences(await asyncio.to_thread(audited, given)) == {}
        finally:
            done.set()
            await asyncio.gather(*sharing)
        assert {folder for *_, folder in made} <= stored(given)
        for person, media_id, _ in made[::10]:
            parts = [
                part async for part in person.media.DownloadMedia(media_pb2.DownloadMediaRequest(media_id=media_id))
            ]
            assert sum(len(part.chunk) for part in parts) == parts[0].variant.size
        # What was deleted goes, whoever does it.
        await until(lambda: asyncio.to_thread(lambda: stored(given) == {folder for *_, folder in made}))
        await people.channel.close()


def at(suite: RunningSuite, *command: str) -> subprocess.CompletedProcess[str]:
    return insta_here("media", *command, "--address", suite.address, environment=suite.environment)


async def test_a_file_is_uploaded_as_somebody_and_downloaded_again(
    together: RunningSuite, eve: Person, picture: Path, tmp_path: Path
) -> None:
    uploaded = at(together, "upload", str(picture), "--alt", "A beach", "--as", eve.username)

    assert uploaded.returncode == 0, uploaded.stderr
    media_id = int(re.match(r"image (\d+): image/png, 4 x 3\n", uploaded.stdout)[1])  # type: ignore[index]
    image = (await eve.media.GetMedia(media_pb2.GetMediaRequest(media_id=media_id))).media
    assert image.alt_text == "A beach"
    for variant in image.variants:
        assert variant.url in uploaded.stdout
    for kind, image_format in (("webp", "WEBP"), ("jpeg", "JPEG")):
        target = tmp_path / f"again.{kind}"
        said = at(together, "download", str(media_id), "-o", str(target), "--type", kind, "--as", eve.username)
        assert said.returncode == 0, said.stderr
        with Image.open(target) as again:
            assert (again.format, again.size) == (image_format, (4, 3))


async def test_a_download_is_no_wider_than_asked_for(together: RunningSuite, eve: Person, tmp_path: Path) -> None:
    Image.new("RGB", (1200, 900)).save(tmp_path / "wide.jpg")
    assert at(together, "upload", str(tmp_path / "wide.jpg"), "--as", eve.username).stdout.startswith("image ")
    [media_id] = re.findall(
        r"^image (\d+)", at(together, "upload", str(tmp_path / "wide.jpg"), "--token", eve.token).stdout
    )

    said = at(together, "download", media_id, "-o", str(tmp_path / "out"), "--width", "700", "--token", eve.token)

    assert "640 x 480" in said.stdout
    with Image.open(tmp_path / "out") as out:
        assert out.size == (640, 480)


async def test_what_the_first_bytes_say_counts_and_not_the_name(
    together: RunningSuite, eve: Person, picture: Path, tmp_path: Path
) -> None:
    shutil.move(picture, tmp_path / "beach.jpg")

    assert "image/png" in at(together, "upload", str(tmp_path / "beach.jpg"), "--as", eve.username).stdout


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("notes.txt", b"hello", "no image that is taken"),
        ("notes.png", b"hello", "IMAGE_FORMAT_UNKNOWN"),
        ("empty.png", b"", "header.size"),
        ("broken.jpg", b"\xff\xd8\xff\xe0", "IMAGE_DAMAGED"),
    ],
)
async def test_a_file_that_is_refused_is_told(
    together: RunningSuite, eve: Person, tmp_path: Path, name: str, content: bytes, said: str
) -> None:
    (tmp_path / name).write_bytes(content)

    refused = at(together, "upload", str(tmp_path / name), "--as", eve.username)

    assert refused.returncode == 1
    assert refused.stdout == ""
    assert said in refused.stderr


async def test_an_image_of_somebody_else_is_not_downloaded(
    together: RunningSuite, eve: Person, people: People, tmp_path: Path
) -> None:
    image = await (await people.join()).upload()

    refused = at(together, "download", str(image.id), "-o", str(tmp_path / "out"), "--as", eve.username)

    assert refused.returncode == 1
    assert "MEDIA_NOT_FOUND" in refused.stderr
    assert not (tmp_path / "out").exists()


def test_a_server_that_is_not_there_is_told(together: RunningSuite, picture: Path) -> None:
    said = insta_here(
        "media", "upload", str(picture), "--address", "127.0.0.1:1", "--as", "boss", environment=together.environment
    )

    assert said.returncode == 1
    assert "cannot be reached" in said.stderr


def test_calling_the_upload_names_the_command_that_can_do_it(together: RunningSuite) -> None:
    said = insta_here(
        "call", "--address", together.address, "MediaService.UploadMedia", environment=together.environment
    )

    assert said.returncode == 1
    assert "insta media upload" in said.stderr
