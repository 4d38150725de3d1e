"""The pictures of `insta demo`: drawn, processed and stored as if somebody had uploaded them."""

from __future__ import annotations

import asyncio
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from random import Random

import pytest
from PIL import Image

from chassis import clock, errors, validation
from chassis.settings import from_environment
from insta.gateway.v1 import media_pb2
from services.posts.media import collector, records
from services.posts.media.blob_store import open_blob_store
from services.posts.media.images import variant_name
from suite import demo_gallery, demo_pictures, demo_scenes
from suite.composition import SERVICES
from suite.databases import open_store
from suite.demo_network import WantedPicture
from suite.demo_painting import Canvas
from tests.people import People
from tests.running import environment, insta, running
from tests.suite.demos import PASSWORD, ROWS, SIZES, demo, everything, rows

PICTURES = 8
AVATARS = 2


@pytest.fixture(scope="module")
def illustrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder that was filled once, pictures among it, for tests that only read it."""
    data = tmp_path_factory.mktemp("illustrated") / "var"
    done = demo(data, *ROWS, "--pictures", str(PICTURES), "--password", PASSWORD)
    assert done.returncode == 0, done.stderr
    assert f"pictures: {PICTURES} in" in done.stdout
    return data


def stored(data: Path) -> list[list[bytes]]:
    """The blobs of each image, the smallest first, in the order of the images."""
    return [
        [
            (data / "media" / str(folder) / variant_name(width, content_type)).read_bytes()
            for width, _, content_type, _ in json.loads(str(variants))
        ]
        for folder, variants in rows(data, "posts", "SELECT folder, variants FROM media ORDER BY id")
    ]


@pytest.mark.parametrize("scene", demo_scenes.SCENES)
def test_the_same_random_numbers_paint_the_same_scene_and_others_another(scene: demo_scenes.Scene) -> None:
    def painted(seed: int) -> tuple[str, bytes]:
        canvas, rng = Canvas((270, 180)), Random(seed)
        return scene(canvas, rng), canvas.finish(rng).tobytes()

    assert painted(1) == painted(1)
    assert painted(1)[1] != painted(2)[1]


def test_pictures_are_of_a_good_size_and_say_what_is_to_be_seen() -> None:
    for seed in range(3):
        for picture in (demo_pictures.draw(Random(seed), seed), demo_pictures.draw_portrait(Random(seed))):
            width, height = picture.image.size
            assert 480 <= width <= 1080
            assert 480 <= height <= 1080
            assert picture.image.mode == "RGB"
            # More than one colour, however small it is shown.
            assert len(set(picture.image.resize((8, 8)).tobytes())) > 8
            assert picture.alt_text[0].isupper()
            assert picture.alt_text.endswith(".")
            validation.check(media_pb2.UpdateMediaRequest(media_id=1, alt_text=picture.alt_text))


def test_the_same_seed_and_sizes_make_the_same_pictures(illustrated: Path, tmp_path: Path) -> None:
    demo(tmp_path, *ROWS, "--pictures", str(PICTURES), "--password", PASSWORD)

    assert everything(tmp_path) == everything(illustrated)
    assert stored(tmp_path) == stored(illustrated)


def test_how_many_processes_draw_is_of_no_importance(tmp_path: Path) -> None:
    # No person has two avatars.
    wanted = [WantedPicture(number, f"{number}", number != 1, 7 + number, 1_000 + number) for number in range(4)]

    def filled(processes: int) -> list[int]:
        settings = from_environment(environment(tmp_path / f"{processes}"))
        with closing(open_store(settings, SERVICES["posts"])) as posts, closing(open_blob_store(settings)) as blobs:
            return demo_gallery.fill(posts, blobs, wanted, lambda count: None, processes)

    assert filled(1) == filled(2) == [1, 2, 3, 4]
    assert everything_of_posts(tmp_path / "1") == everything_of_posts(tmp_path / "2")
    assert stored(tmp_path / "1") == stored(tmp_path / "2")


def everything_of_posts(data: Path) -> list[tuple[object, ...]]:
    return rows(
        data,
        "posts",
        "SELECT id, owner_id, blurhash, alt_text, variants, create_time, avatar_of FROM media ORDER BY id",
    )


def test_every_blob_of_every_picture_is_in_the_store_and_none_else(illustrated: Path) -> None:
    media = rows(illustrated, "posts", "SELECT folder, variants, width FROM media ORDER BY id")

    assert len(media) == PICTURES
    assert sorted(path.name for path in (illustrated / "media").glob("[!.]*")) == sorted(str(row[0]) for row in media)
    for (folder, variants, full_width), blobs in zip(media, stored(illustrated), strict=True):
        described = json.loads(str(variants))
        assert [size for *_, size in described] == [len(blob) for blob in blobs]
        assert len(list((illustrated / "media" / str(folder)).iterdir())) == len(blobs)
        assert max(width for width, *_ in described) == full_width
        for (width, height, content_type, _), blob in zip(described, blobs, strict=True):
            with Image.open(io.BytesIO(blob)) as image:
                assert (image.size, Image.MIME[image.format or ""]) == ((width, height), content_type)
    # Nothing is to be deleted.
    assert rows(illustrated, "posts", "SELECT * FROM discard") == []
    assert rows(illustrated, "posts", "SELECT id FROM media WHERE expire_time IS NOT NULL OR alt_text = ''") == []


def test_the_newest_posts_and_the_most_popular_people_have_pictures(illustrated: Path) -> None:
    posts = rows(illustrated, "posts", "SELECT id, author_id, image_urls, create_time FROM post ORDER BY id DESC")
    shown = {
        post_id: (count, owner_id, created)
        for post_id, count, owner_id, created in rows(
            illustrated,
            "posts",
            "SELECT post_id, count(DISTINCT position), max(owner_id), min(create_time) FROM media"
            " WHERE post_id IS NOT NULL GROUP BY post_id ORDER BY post_id",
        )
    }
    avatars = rows(illustrated, "posts", "SELECT avatar_of FROM media WHERE avatar_of IS NOT NULL")
    followed = rows(illustrated, "social", "SELECT user_id FROM user_counter ORDER BY follower_count DESC LIMIT 10")

    assert sum(count for count, _, _ in shown.values() if isinstance(count, int)) == PICTURES - AVATARS
    assert list(shown) == [post_id for post_id, *_ in posts[: len(shown)]][::-1]
    for post_id, author_id, image_urls, create_time in posts:
        if post_id in shown:
            assert shown[post_id] in [(count, author_id, create_time) for count in (1, 2, 3)]
            assert image_urls == "[]"
        else:
            assert "picsum" in str(image_urls)
    assert len(avatars) == AVATARS
    assert set(avatars) <= set(followed)


def test_all_else_is_as_without_pictures(illustrated: Path, tmp_path: Path) -> None:
    demo(tmp_path, *SIZES, "--password", PASSWORD)

    def others(data: Path) -> dict[str, list[tuple[object, ...]]]:
        made = {table: made for table, made in everything(data).items() if table.split(".")[0] != "posts"}
        made["post"] = rows(
            data, "posts", "SELECT id, author_id, title, description, create_time FROM post ORDER BY id"
        )
        return made

    assert others(tmp_path) == others(illustrated)
    assert not (tmp_path / "media").exists()


def test_as_many_pictures_as_there_is_a_place_for(tmp_path: Path) -> None:
    made = demo(tmp_path, "--users", "2", "--posts", "1", "--likes", "0", "--comments", "0", "--follows", "0")

    assert made.returncode == 0, made.stderr
    assert rows(tmp_path, "posts", "SELECT count(post_id), count(avatar_of) FROM media") == [(3, 2)]


def test_a_store_that_fails_ends_it_with_an_error_of_the_suite(tmp_path: Path) -> None:
    settings = from_environment(environment(tmp_path))
    wanted = [WantedPicture(number, f"{number}", True, 7 + number, 1_000) for number in range(4)]
    with closing(open_store(settings, SERVICES["posts"])) as posts, closing(open_blob_store(settings)) as blobs:
        shutil.rmtree(tmp_path / "media")
        with pytest.raises(errors.Unavailable) as failure:
            demo_gallery.fill(posts, blobs, wanted, lambda count: None, 1)

    assert "store of images" in failure.value.text
    assert rows(tmp_path, "posts", "SELECT count(*) FROM media") == [(0,)]
    assert rows(tmp_path, "posts", "SELECT count(*) > 0 FROM discard") == [(1,)]


@pytest.mark.sqlite
async def test_a_feed_and_profiles_show_them_http_serves_them_and_the_audit_finds_nothing_wrong(
    illustrated: Path, tmp_path: Path
) -> None:
    data = shutil.copytree(illustrated, tmp_path / "var")
    ((author,),) = rows(data, "posts", "SELECT author_id FROM post ORDER BY id DESC LIMIT 1")
    ((popular,),) = rows(data, "posts", "SELECT min(avatar_of) FROM media")
    usernames = dict(rows(data, "users", 'SELECT id, username FROM "user"'))
    with running("together", data) as suite:
        people = People(suite.address)
        try:
            ana = await people.join()
            await ana.follow(await people.log_in(usernames[author], PASSWORD))
            newest = (await ana.home())[0]
            profile = await ana.profile(await people.log_in(usernames[popular], PASSWORD))
            largest = newest.media[0].variants[-1]
            served = await asyncio.to_thread(fetched, largest.url)
        finally:
            await people.channel.close()
        audited = await asyncio.to_thread(insta, "audit", environment=suite.environment)

    assert 1 <= len(newest.media) <= 3
    assert all(media.alt_text and media.blurhash for media in newest.media)
    assert profile.avatar.alt_text.startswith("A drawn portrait")
    assert served == (largest.content_type, largest.size)
    assert audited.returncode == 0, audited.stdout


def fetched(url: str) -> tuple[str, int]:
    with urllib.request.urlopen(url, timeout=10) as answer:
        return answer.headers["content-type"], len(answer.read())


@pytest.mark.parametrize("ended_by", [signal.SIGINT, signal.SIGKILL])
def test_a_demo_that_is_ended_early_leaves_nothing_for_ever(
    tmp_path: Path, ended_by: signal.Signals, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = environment(tmp_path)
    # What runs in the background of a script has SIGINT ignored, and all that it starts.
    command = ["env", "--default-signal=INT", sys.executable, "-m", "suite", "demo", *ROWS, "--pictures", "200"]
    with subprocess.Popen(
        command, env=given, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        until(lambda: len(list((tmp_path / "media").glob("[!.]*"))) >= 3)
        if ended_by is signal.SIGINT:
            # As a terminal does it.
            os.killpg(process.pid, ended_by)
        else:
            process.send_signal(ended_by)
        _, said = process.communicate(timeout=30)
    until(lambda: not list(alive(process.pid)))

    assert process.returncode == (1 if ended_by is signal.SIGINT else -signal.SIGKILL)
    assert "Traceback" not in said, said
    assert rows(tmp_path, "posts", "SELECT count(*) FROM post") == [(0,)]
    held = {row[0] for row in rows(tmp_path, "posts", "SELECT folder FROM media UNION ALL SELECT folder FROM discard")}
    assert {path.name for path in (tmp_path / "media").glob("[0-9a-f]*")} <= held
    a_day_later = clock.now() + records.KEPT_MICROS
    monkeypatch.setattr(clock, "now", lambda: a_day_later)
    asyncio.run(collect_all(tmp_path))
    avatars = {row[0] for row in rows(tmp_path, "posts", "SELECT folder FROM media WHERE avatar_of IS NOT NULL")}
    assert {path.name for path in (tmp_path / "media").glob("[0-9a-f]*")} == avatars


async def collect_all(data: Path) -> None:
    settings = from_environment(environment(data))
    with closing(open_store(settings, SERVICES["posts"])) as posts, closing(open_blob_store(settings)) as blobs:
        collecting = collector.collecting(posts, blobs)
        while await collecting.step():
            pass


def alive(session: int) -> Iterator[int]:
    """The processes of a session that run."""
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, _, of_session, *_ = stat.read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(of_session) == session and state != "Z":
            yield int(stat.parent.name)


def until(condition: Callable[[], object], seconds: float = 50) -> None:
    """Wait for what nothing tells of."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)
