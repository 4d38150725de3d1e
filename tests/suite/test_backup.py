"""`insta backup` and `insta restore`: copies are whole, and are put in place whole or not at all."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import shutil
import stat
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from pathlib import Path

import apsw
import grpc
import pytest

from insta.gateway.v1 import accounts_pb2, media_pb2, profiles_pb2
from services.users import keys
from suite import image_copies
from tests import disks
from tests.people import People, Person, failure
from tests.running import RunningSuite, environment, insta, insta_here, running
from tests.suite.auditing import audited, change, differences
from tests.suite.crowds import leave, use
from tests.suite.image_store import leave_unknown, store_of, stored, suite_with_images

pytestmark = pytest.mark.sqlite


CLIENTS = 8
DATABASES = ("social", "posts", "users")


@pytest.fixture
def suite(tmp_path: Path) -> Iterator[RunningSuite]:
    """A running suite of a test's own."""
    with running("together", tmp_path / "var") as started:
        yield started


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Mapping[str, str], Path]:
    """The environment of a suite that is stopped, and a backup of its databases. Tests copy what they change."""
    folder = tmp_path_factory.mktemp("made")
    with running("together", folder / "var") as started:
        given = started.environment
    copied = run("backup", str(folder / "backup"), environment=given)
    assert copied.returncode == 0, copied.stderr
    return given, folder / "backup"


@pytest.fixture
def stopped(made: tuple[Mapping[str, str], Path], tmp_path: Path) -> Mapping[str, str]:
    """The environment of a stopped suite with data of the test's own."""
    given, _ = made
    shutil.copytree(given["INSTA_DATA"], tmp_path / "data")
    return {**given, "INSTA_DATA": str(tmp_path / "data")}


@pytest.fixture
def backup(made: tuple[Mapping[str, str], Path], tmp_path: Path) -> Path:
    """A backup of the test's own."""
    return Path(shutil.copytree(made[1], tmp_path / "backup"))


def run(*command: str, environment: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    return (insta if command[0] == "up" else insta_here)(*command, environment=environment)


def refused(*command: str, environment: Mapping[str, str]) -> str:
    """The sentence with which a command is refused that leaves the databases as they are."""
    before = contents(Path(environment["INSTA_DATA"]))
    said = run(*command, environment=environment)
    assert said.returncode == 1
    assert said.stdout == ""
    assert said.stderr.startswith("Error: ")
    assert contents(Path(environment["INSTA_DATA"])) == before
    return said.stderr


def contents(data: Path) -> dict[str, bytes]:
    """The databases in a data folder, and the folders beside them."""
    return {path.name: path.read_bytes() if path.is_file() else b"" for path in data.glob("*") if is_data(path)}


def is_data(path: Path) -> bool:
    return path.is_dir() or path.suffix == ".db"


def rows_of(path: Path, query: str) -> set[object]:
    """The first column of what a query finds in a copy that nobody uses."""
    uri = f"{path.as_uri()}?immutable=1"
    with closing(apsw.Connection(uri, flags=apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI)) as copy:
        return {row[0] for row in copy.execute(query)}


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


async def test_a_copy_holds_all_that_was_answered_before_it_began(suite: RunningSuite, tmp_path: Path) -> None:
    people = People(suite.address)
    enough, done = asyncio.Event(), asyncio.Event()
    users: set[int] = set()
    posts: set[int] = set()
    comments: set[int] = set()

    async def write() -> None:
        while not done.is_set():
            member = await people.join()
            users.add(member.id)
            for _ in range(20):
                post = await member.post()
                posts.add(post.id)
                if len(posts) >= 200:
                    enough.set()
                comments.add((await member.comment(post)).id)

    writing = [asyncio.create_task(write()) for _ in range(CLIENTS)]
    await enough.wait()
    answered = set(users), set(posts), set(comments)
    said = await asyncio.to_thread(run, "backup", str(tmp_path / "copy"), environment=suite.environment)
    at_the_end = len(posts)
    done.set()
    await asyncio.gather(*writing)
    await people.channel.close()

    assert said.returncode == 0, said.stderr
    # Writers were not held meanwhile.
    assert at_the_end > len(answered[1])
    copy = tmp_path / "copy"
    with_users = rows_of(copy / "users.db", "SELECT id FROM user")
    with_posts = rows_of(copy / "posts.db", "SELECT id FROM post")
    with_comments = rows_of(copy / "social.db", "SELECT id FROM comment")
    assert answered[0] <= with_users
    assert answered[1] <= with_posts
    assert answered[2] <= with_comments
    # What is in a copy refers to nothing newer than the copies made after it.
    assert rows_of(copy / "social.db", "SELECT post_id FROM comment") <= with_posts
    assert rows_of(copy / "posts.db", "SELECT author_id FROM post") <= with_users


def test_a_backup_is_for_its_owner_only_and_tells_what_it_is(made: tuple[Mapping[str, str], Path]) -> None:
    _, backup = made

    manifest = json.loads((backup / "manifest.json").read_text())

    files = [f"{name}.db" for name in DATABASES]
    assert sorted(path.name for path in backup.iterdir()) == sorted([*files, "images", "manifest.json"])
    assert {mode(path) for path in (backup, *backup.iterdir()) if path.is_dir()} == {0o700}
    assert {mode(path) for path in backup.iterdir() if path.is_file()} == {0o600}
    assert manifest["format"] == 1
    for copy in manifest["databases"]:
        content = (backup / f"{copy['name']}.db").read_bytes()
        assert (copy["size"], copy["sha256"]) == (len(content), hashlib.sha256(content).hexdigest())
    assert [copy["name"] for copy in manifest["databases"] if copy["epoch"]] == [*DATABASES]


@pytest.mark.parametrize("there", ["backup", "backup.partial"])
def test_a_backup_takes_the_place_of_nothing(stopped: Mapping[str, str], tmp_path: Path, there: str) -> None:
    (tmp_path / there).mkdir()

    assert there in refused("backup", str(tmp_path / "backup"), environment=stopped)

    assert [path for path in tmp_path.glob("backup*") if path.name != there] == []


def test_a_backup_that_fails_leaves_nothing(stopped: Mapping[str, str], tmp_path: Path) -> None:
    damaged = Path(stopped["INSTA_DATA"]) / "users.db"
    content = damaged.read_bytes()
    damaged.write_bytes(content[:4096] + bytes(8192) + content[12288:])

    refused("backup", str(tmp_path / "backup"), environment=stopped)

    assert list(tmp_path.glob("backup*")) == []


def test_without_databases_there_is_no_backup(tmp_path: Path) -> None:
    said = run("backup", str(tmp_path / "backup"), environment=environment(tmp_path / "var"))

    assert said.returncode == 1
    assert "INSTA_DATA" in said.stderr
    assert list(tmp_path.iterdir()) == []


async def test_after_a_restore_everything_is_as_it_was_but_nobody_is_logged_in(tmp_path: Path) -> None:
    data, copy = tmp_path / "var", tmp_path / "copy"
    with running("together", data) as suite:
        people = People(suite.address)
        ana, ben, *others = await use(people, 4)
        await leave(others[0])
        post = await ana.post("Before")
        revoked = await people.log_in(ana.username)
        assert (await asyncio.to_thread(run, "backup", str(copy), environment=suite.environment)).returncode == 0
        later = await ana.post("After")
        await revoked.accounts.Logout(accounts_pb2.LogoutRequest())
        newcomer = await people.join()
        await leave(ben)
        newest = await people.join()
        await people.channel.close()

    restored = run("restore", str(copy), "--replace", environment=suite.environment)

    assert restored.returncode == 0, restored.stderr
    [kept] = data.glob("replaced-*")
    assert str(kept) in restored.stdout
    assert {f"{name}.db" for name in DATABASES} <= {path.name for path in kept.iterdir()}
    assert later.id in rows_of(kept / "posts.db", "SELECT id FROM post")
    with running("together", data, superuser=False) as suite:
        people = People(suite.address)
        assert differences(audited(suite.environment)) == {}
        for person in (ana, ben, revoked, newcomer, newest):
            token_only = Person(people.channel, token=person.token)
            refusal = await failure(token_only.profiles.GetProfile(profiles_pb2.GetProfileRequest(user_id=ana.id)))
            assert (refusal.code, refusal.reason) == (grpc.StatusCode.UNAUTHENTICATED, "TOKEN_INVALID")
            request = accounts_pb2.RefreshSessionRequest(refresh_token=person.refresh_token)
            refusal = await failure(people.stranger.accounts.RefreshSession(request))
            assert (refusal.code, refusal.reason) == (grpc.StatusCode.UNAUTHENTICATED, "REFRESH_TOKEN_INVALID")
        reader = await people.log_in(ben.username)
        assert (await reader.see(post)).title == "Before"
        refusal = await failure(reader.see(later))
        assert refusal.reason == "POST_NOT_FOUND"
        assert (await reader.profile(ana)).post_count == 2
        # Ids of what came after the backup stay what they were.
        somebody = await people.join()
        assert somebody.id > newest.id
        new_post = await somebody.post()
        assert new_post.id > later.id
        assert await reader.like(new_post) == 1
        assert differences(audited(suite.environment)) == {}
        await people.channel.close()


def test_a_backup_is_restored_where_there_was_nothing(backup: Path, tmp_path: Path) -> None:
    given = environment(tmp_path / "new")

    restored = run("restore", str(backup), environment=given)

    assert restored.returncode == 0, restored.stderr
    assert not list((tmp_path / "new").glob("replaced-*"))
    assert {mode(tmp_path / "new" / f"{name}.db") for name in DATABASES} == {0o600}
    with running("together", tmp_path / "new", superuser=False) as suite:
        assert differences(audited(suite.environment)) == {}


def test_a_restored_log_is_another_one_to_whoever_read_it(stopped: Mapping[str, str], backup: Path) -> None:
    """So its readers compare. To read on would pass over what was undone by the restore."""

    def epochs() -> dict[str, set[object]]:
        data = Path(stopped["INSTA_DATA"])
        return {name: rows_of(data / f"{name}.db", "SELECT epoch FROM event_log") for name in DATABASES}

    before = epochs()

    assert run("restore", str(backup), "--replace", environment=stopped).returncode == 0

    after = epochs()
    for name in DATABASES:
        assert len(before[name] | after[name]) == 2, name


def test_a_copy_that_could_not_be_written_to_its_end_takes_the_place_of_nothing(
    stopped: Mapping[str, str], backup: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    partial = Path(stopped["INSTA_DATA"]) / "restore.partial"

    with disks.closing_fails(monkeypatch, keys, "replace", partial / "users.db"):
        said = refused("restore", str(backup), "--replace", environment=stopped)

    assert "Is the disk full?" in said


def test_what_is_there_is_not_replaced_without_being_told_to(stopped: Mapping[str, str], backup: Path) -> None:
    assert "--replace" in refused("restore", str(backup), environment=stopped)


def test_nothing_is_restored_into_a_running_suite(suite: RunningSuite, backup: Path) -> None:
    assert "running" in refused("restore", str(backup), "--replace", environment=suite.environment)


def _changed_byte(backup: Path) -> None:
    content = bytearray((backup / "posts.db").read_bytes())
    content[-1] ^= 1
    (backup / "posts.db").write_bytes(content)


def _shorter(backup: Path) -> None:
    os.truncate(backup / "posts.db", 4096)


def _missing(backup: Path) -> None:
    (backup / "users.db").unlink()


def _unfinished(backup: Path) -> None:
    (backup / "manifest.json").unlink()


def _no_json(backup: Path) -> None:
    (backup / "manifest.json").write_text('{"format": 1')


def _manifest(backup: Path, **changes: object) -> None:
    manifest = json.loads((backup / "manifest.json").read_text())
    (backup / "manifest.json").write_text(json.dumps(manifest | changes))


def _newer_format(backup: Path) -> None:
    _manifest(backup, format=2)


def _no_databases(backup: Path) -> None:
    _manifest(backup, databases=[])


def _elsewhere(backup: Path) -> None:
    path = backup / "manifest.json"
    path.write_text(path.read_text().replace('"posts"', '"../posts"'))


def _newer_schema(backup: Path) -> None:
    with closing(apsw.Connection(str(backup / "posts.db"))) as copy:
        copy.execute("INSERT INTO schema_migration (name, applied) VALUES ('9999_from_the_future', '')")
    content = (backup / "posts.db").read_bytes()
    manifest = json.loads((backup / "manifest.json").read_text())
    for entry in manifest["databases"]:
        if entry["name"] == "posts":
            entry |= {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    _manifest(backup, databases=manifest["databases"])


@pytest.mark.parametrize(
    "spoil",
    [
        _changed_byte,
        _shorter,
        _missing,
        _unfinished,
        _no_json,
        _newer_format,
        _no_databases,
        _elsewhere,
        _newer_schema,
        shutil.rmtree,
    ],
)
def test_a_backup_that_is_not_whole_or_newer_is_refused(
    stopped: Mapping[str, str], backup: Path, spoil: Callable[[Path], None]
) -> None:
    spoil(backup)

    assert str(backup) in refused("restore", str(backup), "--replace", environment=stopped)


def test_a_restore_that_was_interrupted_is_finished_before_anything_else(
    stopped: Mapping[str, str], backup: Path, tmp_path: Path
) -> None:
    data = Path(stopped["INSTA_DATA"])
    # As it is when the process dies after the first of the databases was exchanged.
    ready, kept = data / "restore.ready", data / "replaced-1"
    ready.mkdir()
    kept.mkdir()
    (ready / "kept").write_text(kept.name)
    old = contents(data)
    for name in DATABASES:
        shutil.copy(backup / f"{name}.db", ready)
    new = {path.name: path.read_bytes() for path in ready.glob("*.db")}
    (data / "posts.db").rename(kept / "posts.db")
    (ready / "posts.db").rename(data / "posts.db")

    for command in (("token", "boss"), ("audit",), ("up",)):
        assert "restore" in refused(*command, environment=stopped)
    finished = run("restore", str(backup), environment=stopped)

    assert finished.returncode == 0, finished.stderr
    assert str(kept) in finished.stdout
    assert not ready.exists()
    for name in DATABASES:
        assert (data / f"{name}.db").read_bytes() == new[f"{name}.db"]
        assert (kept / f"{name}.db").read_bytes() == old[f"{name}.db"]


async def test_an_older_copy_of_users_alone_is_mended_as_far_as_it_can_be(tmp_path: Path) -> None:
    data, copy = tmp_path / "var", tmp_path / "copy"
    with running("together", data) as suite:
        people = People(suite.address)
        ana, ben = await use(people, 2)
        assert (await asyncio.to_thread(run, "backup", str(copy), environment=suite.environment)).returncode == 0
        newcomer = await people.join()
        newcomers = await newcomer.post()
        await newcomer.follow(ana)
        await ana.like(newcomers)
        await leave(ben)
        while differences(audited(suite.environment)):
            pass
        await people.channel.close()
    shutil.copy(copy / "users.db", data / "users.db")

    with running("together", data, superuser=False) as suite:
        people = People(suite.address)
        ana = await people.log_in(ana.username)
        # What refers to somebody who is unknown now is erased; who is back again is still taken for gone.
        assert differences(audited(suite.environment)) == {
            "posts: user gone: still exists": 1,
            "social: user gone: still exists": 1,
        }
        assert (await ana.profile(ana)).follower_count == 0
        assert (await failure(ana.see(newcomers))).reason == "POST_NOT_FOUND"
        back = await people.log_in(ben.username)
        assert (await failure(back.post())).code == grpc.StatusCode.UNAUTHENTICATED

        repaired = await asyncio.to_thread(run, "audit", "--repair", environment=suite.environment)

        assert repaired.returncode == 0, repaired.stdout
        assert await ana.like(await back.post()) == 1
        assert differences(audited(suite.environment)) == {}
        await people.channel.close()


@pytest.fixture(scope="module")
def made_with_images(tmp_path_factory: pytest.TempPathFactory) -> tuple[Mapping[str, str], Path]:
    """The environment of a suite with five images that is stopped, and a backup of it. Tests copy what they change."""
    folder = tmp_path_factory.mktemp("images")
    given, _ = suite_with_images(folder / "var")
    copied = run("backup", str(folder / "backup"), environment=given)
    assert copied.returncode == 0, copied.stderr
    assert "5 images" in copied.stdout
    return given, folder / "backup"


@pytest.fixture
def with_images(made_with_images: tuple[Mapping[str, str], Path], tmp_path: Path) -> tuple[Mapping[str, str], Path]:
    """The same of the test's own."""
    given, copy = made_with_images
    shutil.copytree(given["INSTA_DATA"], tmp_path / "data")
    return {**given, "INSTA_DATA": str(tmp_path / "data")}, shutil.copytree(copy, tmp_path / "backup")


def test_images_in_a_folder_are_copied_as_links(made_with_images: tuple[Mapping[str, str], Path]) -> None:
    given, backup = made_with_images

    blobs = {path.relative_to(store_of(given)): path.stat() for path in store_of(given).glob("*/*")}
    copies = {path.relative_to(backup / "images"): path.stat() for path in (backup / "images").glob("*/*")}
    said = json.loads((backup / "manifest.json").read_text())["images"]

    assert len(blobs) == 10
    assert {path: found.st_ino for path, found in copies.items()} == {path: at.st_ino for path, at in blobs.items()}
    assert said == {"folders": 5, "size": sum(found.st_size for found in blobs.values())}


def test_images_that_are_lost_are_restored_and_those_that_are_there_stay(
    with_images: tuple[Mapping[str, str], Path],
) -> None:
    given, backup = with_images
    store = store_of(given)
    lost, incomplete, *_ = sorted(stored(given))
    before = {path: path.read_bytes() for path in store.glob("*/*")}
    shutil.rmtree(store / lost)
    (store / incomplete / "4.jpg").unlink()
    newer = leave_unknown(given, 60)

    restored = run("restore", str(backup), "--replace", environment=given)

    assert restored.returncode == 0, restored.stderr
    assert "2 were missing" in restored.stdout
    assert newer in stored(given)
    shutil.rmtree(store / newer)
    assert {path: path.read_bytes() for path in store.glob("*/*")} == before
    assert not list(store.glob(".new-*"))
    assert "posts: blobs of images" not in differences(audited(given))


def test_a_backup_without_all_its_images_is_refused(with_images: tuple[Mapping[str, str], Path]) -> None:
    given, backup = with_images
    next((backup / "images").glob("*/*")).unlink()

    assert "images" in refused("restore", str(backup), "--replace", environment=given)


def test_a_backup_of_before_there_were_images_is_restored(with_images: tuple[Mapping[str, str], Path]) -> None:
    given, backup = with_images
    shutil.rmtree(backup / "images")
    _manifest(backup, images=None)
    before = stored(given)

    restored = run("restore", str(backup), "--replace", environment=given)

    assert restored.returncode == 0, restored.stderr
    assert "no images" in restored.stdout
    assert stored(given) == before


def test_of_a_bucket_it_is_said_that_it_is_not_copied(
    with_images: tuple[Mapping[str, str], Path], tmp_path: Path
) -> None:
    given, backup = with_images
    bucket = {**given, "INSTA_MEDIA_URL": "s3://pictures/here"}

    copied = run("backup", str(tmp_path / "second"), environment=bucket)

    assert copied.returncode == 0, copied.stderr
    assert "s3://pictures/here are not copied" in copied.stdout
    assert not (tmp_path / "second" / "images").exists()
    restored = run("restore", str(backup), "--replace", environment=bucket)
    assert "not put back" in restored.stdout


async def test_every_image_of_a_copied_database_is_copied_while_others_come_and_go(tmp_path: Path) -> None:
    done, enough = asyncio.Event(), asyncio.Event()
    with running("together", tmp_path / "var") as suite:
        people = People(suite.address)
        count = 0

        async def share() -> None:
            nonlocal count
            person = await people.join()
            while not done.is_set():
                image, spare = await person.upload(), await person.upload()
                await person.post(media_ids=[image.id])
                await person.media.DeleteMedia(media_pb2.DeleteMediaRequest(media_id=spare.id))
                count += 1
                if count > 10:
                    enough.set()

        sharing = [asyncio.create_task(share()) for _ in range(4)]
        try:
            await enough.wait()
            for number in range(5):
                said = await asyncio.to_thread(
                    run, "backup", str(tmp_path / f"{number}"), environment=suite.environment
                )
                assert said.returncode == 0, said.stderr
        finally:
            done.set()
            await asyncio.gather(*sharing)
        await people.channel.close()

    for number in range(5):
        elsewhere = environment(tmp_path / f"restored{number}")
        assert run("restore", str(tmp_path / f"{number}"), environment=elsewhere).returncode == 0
        # Nobody has read the restored event logs yet, which is another matter.
        assert "posts: blobs of images" not in differences(audited(elsewhere))


def test_the_copy_forgets_what_came_and_went_and_tells_of_what_is_lost(
    with_images: tuple[Mapping[str, str], Path], tmp_path: Path
) -> None:
    given, backup = with_images
    gone, lost, *others = sorted(stored(given))
    for folder in (gone, lost):
        shutil.rmtree(backup / "images" / folder)
    change(given, "posts", f"DELETE FROM media WHERE folder = '{gone}'")

    told = image_copies.settle(Path(given["INSTA_DATA"]) / "posts.db", backup / "posts.db", backup / "images")

    assert told == 1
    assert rows_of(backup / "posts.db", "SELECT folder FROM media") == {lost, *others}
