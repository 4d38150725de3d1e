"""`insta move`: a network goes on where its databases were moved, and none is ever half moved."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import apsw
import click
import grpc
import psycopg
import pytest
from rich.console import Console

from chassis import events
from chassis.background import ERASURE
from chassis.call import Caller
from chassis.settings import DatabaseAddress, from_environment
from insta.gateway.v1 import accounts_pb2, posts_pb2
from services.users import accounts, keys
from suite.composition import SERVICES
from suite.databases import open_store
from suite.moving import Move
from suite.serving import data_lock
from tests import disks, postgres_server
from tests.people import People, Person, failure
from tests.postgres_server import PASSWORD, Server
from tests.running import DATABASES, environment, insta_here, running

# The files are SQLite's wherever the other tests run.
pytestmark = [postgres_server.needed, pytest.mark.sqlite]
SECRET = "s3cret"
SIZES = ("--users", "20", "--posts", "30", "--likes", "60", "--comments", "40", "--follows", "40", "--pictures", "2")
TO_FILES = ("--from", "postgresql", "--to")
# Text that COPY writes otherwise than it is, and bytes that are no text.
STRANGE = "\\N\\t \t tab\nline\r\n\v\f\b \\. 'quoted' \"twice\" ümläut \N{GRINNING FACE}"
BYTES = b"\x00\\x00\n\t\xff"


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with postgres_server.running() as started:
        yield started


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of databases that is only read: what `insta demo` makes, and strange texts beside."""
    data = tmp_path_factory.mktemp("network") / "data"
    made = insta_here("demo", *SIZES, environment=environment(data))
    assert made.returncode == 0, made.stderr
    given = environment(data)
    with closing(opened(given, "users")) as users:
        users.write_now(keys.ensure)
        users.write_now(events.begin)
    with closing(apsw.Connection(str(data / "posts.db"))) as posts:
        posts.execute("UPDATE post SET description = ?, title = '' WHERE id = 3", (STRANGE,))
        columns = "id, caller_id, about_id, method, request_id, request_mac, response, create_time"
        for number in (7, 9):
            posts.execute(
                f"INSERT INTO reply ({columns}) VALUES (?, 1, 1, '/x', ?, ?, ?, 5)", (number, str(number), BYTES, b"")
            )
        # Its id is never assigned again.
        posts.execute("DELETE FROM reply WHERE id = 9")
    return data


def to(server: Server, data: Path, test: Path, *names: str) -> dict[str, str]:
    """An environment for moving some databases of a folder to new ones on the server. Each takes 8 MB."""
    urls = {f"INSTA_{name.upper()}_DATABASE_URL": server.database(f"{test.name}_{name}") for name in names}
    return environment(data, **urls)


@pytest.fixture
def given(server: Server, network: Path, tmp_path: Path) -> dict[str, str]:
    """An environment for moving the accounts of the network."""
    return to(server, network, tmp_path, "users")


def opened(given: Mapping[str, str], name: str) -> Any:
    return open_store(from_environment(given), SERVICES[name])


def moved(given: Mapping[str, str], *arguments: str) -> str:
    """Run `insta move`, which says this."""
    ended = insta_here("move", *arguments, environment=given)
    assert ended.returncode == 0, ended.stderr
    assert PASSWORD not in ended.stdout + ended.stderr
    return ended.stdout


def refused(given: Mapping[str, str], *arguments: str) -> str:
    """The sentence with which `insta move` ends."""
    ended = insta_here("move", *arguments, environment=given)
    assert ended.returncode == 1, ended.stdout
    sentence = ended.stderr.splitlines()[-1]
    assert sentence.startswith("Error: "), ended.stderr
    assert SECRET not in ended.stderr + ended.stdout
    assert PASSWORD not in ended.stderr + ended.stdout
    return sentence


def run_on(url: str, statement: str) -> None:
    with closing(psycopg.connect(url, autocommit=True)) as connection:
        connection.execute(statement)


def copied(network: Path, folder: Path) -> Path:
    """A folder with accounts that a test changes."""
    folder.mkdir(exist_ok=True)
    with closing(apsw.Connection(str(network / "users.db"))) as source:
        source.execute("VACUUM INTO ?", (str(folder / "users.db"),))
    return folder


def until(looking: psycopg.Connection[Any], query: str, expected: int) -> None:
    """Ask until the answer is the expected one."""
    end = time.monotonic() + 60
    while looking.execute(query).fetchone() != (expected,):
        assert time.monotonic() < end, query
        time.sleep(0.01)


def url_of(given: Mapping[str, str], name: str) -> str:
    return given[f"INSTA_{name.upper()}_DATABASE_URL"]


def rows_on(url: str) -> int:
    """How many rows there are in all tables of a database."""
    with closing(psycopg.connect(url, autocommit=True)) as connection:
        tables = connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'").fetchall()
        counts = [connection.execute(f'SELECT count(*) FROM "{table}"').fetchone() for (table,) in tables]
    return sum(
        count[0] for count, (table,) in zip(counts, tables, strict=True) if count and table != "schema_migration"
    )


def everything(data: Path) -> dict[str, list[Any]]:
    """What stands in the files of a folder, and which ids they assigned last."""
    found: dict[str, list[Any]] = {}
    for name in DATABASES:
        with closing(apsw.Connection(str(data / f"{name}.db"))) as file:
            schema = "SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY 1"
            for (table,) in file.execute(schema).fetchall():
                if table not in ("schema_migration", "event_log"):
                    rows = file.execute(f'SELECT * FROM "{table}"').fetchall()
                    if table == "sqlite_sequence":
                        rows = [row for row in rows if row[1] and row[0] != "schema_migration"]
                    found[f"{name}.{table}"] = sorted(rows, key=repr)
            indexes = "SELECT name FROM sqlite_master WHERE type = 'index' ORDER BY 1"
            found[f"{name} indexes"] = file.execute(indexes).fetchall()
    return found


def on_arrival(url: str, statement: str) -> None:
    """Have a server do something when the account 5 arrives."""
    run_on(
        url,
        "CREATE OR REPLACE FUNCTION meddle() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        f" IF NEW.id = 5 THEN {statement}; END IF; RETURN NEW; END $$;"
        'CREATE OR REPLACE TRIGGER meddle BEFORE INSERT ON "user" FOR EACH ROW EXECUTE FUNCTION meddle()',
    )


def test_a_change_that_is_committed_at_the_last_moment_is_moved(given: dict[str, str], tmp_path: Path) -> None:
    url = url_of(given, "users")
    opened(given, "users").close()
    move = Move(SERVICES["users"], tmp_path / "users.db", DatabaseAddress(url), to_server=False)
    with (
        ThreadPoolExecutor(1) as command,
        closing(psycopg.connect(url, autocommit=True)) as looking,
        closing(psycopg.connect(url)) as writer,
    ):
        writer.execute("INSERT INTO secret (name, value) VALUES ('late', '')")
        moving = command.submit(move.run, Console(quiet=True))
        until(looking, "SELECT count(*) FROM pg_locks WHERE locktype = 'relation' AND NOT granted", 1)
        writer.commit()
        contents = moving.result(60)

    assert contents["secret"].rows == 1


async def test_people_go_on_where_their_network_was_moved(server: Server, tmp_path: Path) -> None:
    data = tmp_path / "data"
    post = posts_pb2.CreatePostRequest(title="First light", request_id="5c3f5a39-8a4f-4d3e-9b0e-6a1f0e6f7a10")
    with running("together", data) as suite:
        people = People(suite.address)
        ana, ben, gone = await people.join(), await people.join(), await people.join()
        first = (await ana.posts.CreatePost(post)).post
        await ben.like(first)
        lost = await gone.post()
        image = await ana.upload()
        await ben.accounts.RevokeSession(accounts_pb2.RevokeSessionRequest(session_id=ben.session_id))
        await people.channel.close()
        given = dict(suite.environment)
    with closing(opened(given, "users")) as users:
        # Nobody has heard of it yet.
        users.write_now(accounts.delete, Caller(gone.id, session_id=gone.session_id), gone.id)
    there = to(server, data, tmp_path, *DATABASES)

    moved(there)

    urls = {f"INSTA_{name.upper()}_DATABASE_URL": url_of(there, name) for name in DATABASES}
    with running("together", data, superuser=False, **urls) as suite:
        people = People(suite.address)
        again = Person(people.channel, ana.id, ana.username, ana.token)
        assert (await again.posts.CreatePost(post)).post == first
        assert (await again.see(first)).like_count == 1
        assert (await again.post()).id > lost.id
        assert [media.id for media in (await again.post(media_ids=[image.id])).media] == [image.id]
        assert (await people.log_in(ben.username)).id == ben.id
        assert (await people.join()).id > gone.id
        refresh = accounts_pb2.RefreshSessionRequest(refresh_token=ana.refresh_token)
        assert (await people.stranger.accounts.RefreshSession(refresh)).access_token
        ended = Person(people.channel, ben.id, ben.username, ben.token)
        assert (await failure(ended.account())).code is grpc.StatusCode.UNAUTHENTICATED
        audit = insta_here("audit", environment=suite.environment)
        assert audit.returncode == 0, audit.stdout + audit.stderr
        assert (await failure(again.see(lost))).code is grpc.StatusCode.NOT_FOUND
        await people.channel.close()
        # They read on: nothing was compared.
        assert suite.log is not None
        assert "comparing instead" not in suite.log.read_text()


def test_what_is_moved_there_and_back_is_the_same(server: Server, network: Path, tmp_path: Path) -> None:
    before = everything(network)
    given, back = to(server, network, tmp_path, *DATABASES), tmp_path / "back"
    back.mkdir()
    # Left by one that was killed.
    (back / "social.db.moving").write_text("half a database")

    said = moved(given)

    assert all(f"{name}: from {network}" in said for name in DATABASES)
    assert str(network / "media") in said
    assert everything(network) == before
    moved(given, *TO_FILES, f"sqlite:{back}")
    assert everything(back) == before
    assert not list(back.glob("*.moving*"))
    assert {path.stat().st_mode & 0o777 for path in back.glob("*.db")} == {0o600}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--to", "mysql://there"), "postgresql://"),
        (("--to", "sqlite"), "postgresql"),
        (("--from", "postgresql"), "sqlite"),
        (("--to", f"postgresql://insta:{SECRET}@there/users"), "users for instance"),
        (("users", "--to", f"postgresql://insta:{SECRET}@there"), "must be postgresql://"),
        (("users", "--to", f"postgresql://there/users?colour={SECRET}"), "colour"),
        (("users", "--from", "sqlite:nowhere"), "no users.db in nowhere"),
        (("users", "--from", f"sqlite:{__file__}"), "is no folder"),
    ],
)
def test_places_that_do_not_work_are_refused(
    server: Server, network: Path, arguments: tuple[str, ...], said: str
) -> None:
    given = environment(network, INSTA_USERS_DATABASE_URL=server.url())

    assert said in refused(given, *arguments)
    assert not Path("nowhere").exists()


def test_a_setting_that_is_missing_is_named(network: Path) -> None:
    assert "INSTA_USERS_DATABASE_URL" in refused(environment(network))
    assert "INSTA_POSTS_DATABASE_URL" in refused(environment(network), "posts")


@pytest.mark.parametrize(
    ("change", "said"), [({"password": SECRET}, "password"), ({"database": "nowhere"}, "nowhere")], ids=lambda _: ""
)
def test_who_is_not_let_in_is_told(server: Server, network: Path, change: dict[str, str], said: str) -> None:
    given = environment(network, INSTA_USERS_DATABASE_URL=server.url(**change))

    assert said in refused(given)


def test_a_server_that_is_away_is_told_of_at_once(server: Server, network: Path) -> None:
    given = environment(network, INSTA_USERS_DATABASE_URL=server.url().replace(str(server.port), "1"))

    assert "refused" in refused(given)


def test_no_database_is_moved_that_a_suite_runs_on(given: dict[str, str], network: Path, tmp_path: Path) -> None:
    with data_lock(from_environment(environment(network)), SERVICES["users"]):
        assert "the users service is running" in refused(given)
    with closing(opened(given, "users")) as users:
        while not users.try_lease(ERASURE):
            time.sleep(0.01)
        assert "a suite is running" in refused(given)
        assert "a suite is running" in refused(given, *TO_FILES, f"sqlite:{tmp_path}")
    assert rows_on(url_of(given, "users")) == 0


def test_a_database_is_only_moved_into_an_empty_one(
    server: Server, given: dict[str, str], network: Path, tmp_path: Path
) -> None:
    moved(given)
    url = url_of(given, "users")
    rows = rows_on(url)

    assert "there are data in" in refused(given)
    others = environment(network, INSTA_POSTS_DATABASE_URL=url)
    assert "no empty database of the posts service" in refused(others)
    assert f"there is a {network / 'users.db'} already" in refused(given, *TO_FILES, "sqlite")
    assert rows_on(url) == rows
    given = to(server, network, tmp_path, "social")
    run_on(url_of(given, "social"), "CREATE TABLE theirs (id bigint)")
    assert "no empty database" in refused(given)


def test_only_a_database_of_this_version_is_moved(server: Server, network: Path, tmp_path: Path) -> None:
    given = environment(network, INSTA_USERS_DATABASE_URL=server.url())
    for name, statement in {
        "older": "DELETE FROM schema_migration WHERE name = '0006_replies_about'",
        "newer": "INSERT INTO schema_migration (name, applied) VALUES ('0999_mood', '2026-01-01')",
        "no database": "DROP TABLE schema_migration",
    }.items():
        folder = copied(network, tmp_path / name.replace(" ", ""))
        with closing(apsw.Connection(str(folder / "users.db"))) as file:
            file.execute(statement)

        assert name in refused(given, "--from", f"sqlite:{folder}")


def test_rows_that_arrive_otherwise_are_noticed(given: dict[str, str]) -> None:
    url = url_of(given, "users")
    opened(given, "users").close()
    for does in ("NEW.username := 'somebody'", "RETURN NULL"):
        on_arrival(url, does)

        assert "of the table user there are 20 rows" in refused(given)
        assert rows_on(url) == 0


def test_nobody_knows_whether_what_was_cut_off_in_its_commit_was_moved(given: dict[str, str], network: Path) -> None:
    url = url_of(given, "users")
    opened(given, "users").close()
    run_on(
        url,
        "CREATE FUNCTION cut() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        " PERFORM pg_terminate_backend(pg_backend_pid()); RETURN NULL; END $$;"
        "CREATE CONSTRAINT TRIGGER cut AFTER INSERT ON event_log DEFERRABLE INITIALLY DEFERRED"
        " FOR EACH ROW EXECUTE FUNCTION cut()",
    )

    with pytest.raises(click.ClickException, match=r"nobody knows .* Run the command again"):
        Move(SERVICES["users"], network / "users.db", DatabaseAddress(url), to_server=True).run(Console(quiet=True))


def test_one_that_is_cut_off_or_killed_leaves_nothing_and_is_run_again(given: dict[str, str], network: Path) -> None:
    url = url_of(given, "users")
    opened(given, "users").close()
    on_arrival(url, "PERFORM pg_terminate_backend(pg_backend_pid())")
    assert "was not moved to" in refused(given)
    assert rows_on(url) == 0
    on_arrival(url, "PERFORM pg_sleep(300)")
    moving = subprocess.Popen([sys.executable, "-m", "suite", "move"], env=given, stdout=subprocess.PIPE)
    with (
        closing(psycopg.connect(url, autocommit=True)) as looking,
        closing(apsw.Connection(str(network / "users.db"))) as file,
        ThreadPoolExecutor(1) as suite,
    ):
        until(looking, "SELECT count(*) FROM pg_stat_progress_copy WHERE tuples_processed = 4", 1)
        # Meanwhile nobody changes what is read, nor starts on what is filled.
        with pytest.raises(apsw.BusyError):
            file.execute("BEGIN IMMEDIATE")
        starting = suite.submit(opened, given, "users")
        until(looking, "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted", 1)

        moving.kill()
        moving.communicate()

        starting.result().close()

    assert rows_on(url) == 0
    on_arrival(url, "NULL")
    said = moved(environment(network), "users", "--from", "sqlite", "--to", url)
    assert "set INSTA_USERS_DATABASE_URL" in said
    assert rows_on(url)


def test_a_file_that_could_not_be_written_to_its_end_is_not_put_in_its_place(
    given: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    moved(given)
    back = tmp_path / "back"

    with disks.closing_fails(monkeypatch, events, "carry_on", back / "users.db.moving"):
        assert "Is the disk full?" in refused(given, *TO_FILES, f"sqlite:{back}")
    assert not list(back.glob("*.db*"))

    monkeypatch.undo()
    moved(given, *TO_FILES, f"sqlite:{back}")


def test_a_log_that_is_ahead_of_the_server_is_numbered_anew(
    given: dict[str, str], network: Path, tmp_path: Path
) -> None:
    far = 10**15
    with closing(apsw.Connection(str(copied(network, tmp_path) / "users.db"))) as file:
        file.executemany("INSERT INTO logged_event VALUES (?, ?, '')", [(far, 1), (far + 5, 2)])
        ((epoch,),) = file.execute("SELECT epoch FROM event_log")

    moved(given, "--from", f"sqlite:{tmp_path}")

    with closing(opened(given, "users")) as users:
        users.write_now(events.begin)
        log = users.read_now(events.read, 1, 0, 1000)
    offsets = [event.offset for event in log.events]
    assert [event.time for event in log.events[-2:]] == [1, 2]
    assert offsets == sorted(offsets)
    assert log.floor_offset < offsets[0]
    assert offsets[-1] < far
    # Who has read the other one compares.
    assert not events.continues(epoch, far, log.epoch)


def test_a_log_goes_on_for_those_who_read_no_more_than_was_moved() -> None:
    moved_on = "a+10-server+2000"

    assert events.continues("a", 10, "a")
    assert events.continues("a", 10, moved_on)
    assert events.continues("a+10-server", 2000, moved_on)
    # It went on where it was as well.
    assert not events.continues("a", 11, moved_on)
    assert not events.continues("a+10-server", 2001, moved_on)
    assert not events.continues("b", 1, moved_on)
    assert not events.continues(moved_on, 1, "a")
