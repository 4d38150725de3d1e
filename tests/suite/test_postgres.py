"""The suite on a PostgreSQL server, by its settings alone, and what is said of settings that do not work."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path

import grpc
import pytest

import chassis
from chassis import postgres_database, settings
from chassis.settings import SettingError
from insta.gateway.v1 import accounts_pb2, posts_pb2
from tests import postgres_server, running
from tests.certificates import Authority
from tests.people import Failure, People, Person, until
from tests.postgres_server import PASSWORD, Server
from tests.running import DATABASES, environment, insta, insta_here

pytestmark = pytest.mark.postgresql
USERS = "INSTA_USERS_DATABASE_URL"
# Something in each that must not be told.
SECRET = "s3cret"
WRONG = (
    "",
    "sqlite:///users.db",
    f"postgresql:insta:{SECRET}@there/users",
    f"postgresql://insta:{SECRET}@there",
    f"postgresql://insta:{SECRET}@there/",
    f"postgresql://insta:{SECRET}/x@there/users",
    f"postgresql://insta:{SECRET}@x@there/users",
    f"postgresql://there/users?password={SECRET} x",
    f"postgresql://there/users?password={SECRET}#x",
    f"host=there password={SECRET}",
)


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with postgres_server.running() as started:
        yield started


def on(server: Server, data: Path, **changed: str) -> dict[str, str]:
    """Settings with new databases on a server."""
    urls = {f"INSTA_{name.upper()}_DATABASE_URL": server.database(f"{data.parent.name}_{name}") for name in DATABASES}
    return {**urls, **changed}


def refused(given: Mapping[str, str], *command: str) -> str:
    """The sentence with which a command ends."""
    ended = insta_here(*(command or ("token", "boss")), environment=given)
    assert ended.returncode == 1
    assert "Traceback" not in ended.stderr
    sentence = ended.stderr.splitlines()[-1]
    assert sentence.startswith("Error: "), ended.stderr
    assert SECRET not in ended.stderr + ended.stdout
    assert PASSWORD not in ended.stderr + ended.stdout
    return sentence


@pytest.mark.parametrize("mode", ["apart", "workers"])
async def test_people_use_a_suite_whose_databases_are_on_a_server_also_after_it_was_away(
    server: Server, tmp_path: Path, mode: str
) -> None:
    data = tmp_path / "data"
    with running.running(mode, data, **on(server, data)) as suite:
        people = People(suite.address)
        ana, ben = await people.join(), await people.join()
        post = await ana.post()
        await ben.like(post)
        assert (await ben.see(post)).like_count == 1
        server.stop()
        for _ in range(10):
            began = time.monotonic()
            with pytest.raises(grpc.aio.AioRpcError) as away:
                await ben.like(post)
            failed = Failure(away.value)
            assert (failed.code, failed.reason) == (grpc.StatusCode.UNAVAILABLE, "UNAVAILABLE")
            assert failed.retry_after
            assert time.monotonic() - began < 3
        # A balancer that took this suite away would have no other: all have the same databases.
        assert insta_here("check", suite.address, environment=suite.environment).returncode == 0
        server.start()
        await until(partial(_is_well, ben, post))
        # Users tells posts and social, whose leases were lost, and the gateway.
        await ana.accounts.DeleteAccount(accounts_pb2.DeleteAccountRequest(password=running.PASSWORD))
        await until(partial(_is_gone, ben, post))
        await people.channel.close()
        demo = insta(
            "demo",
            "--users",
            "20",
            "--posts",
            "30",
            "--likes",
            "40",
            *("--comments", "40", "--follows", "40", "--pictures", "0"),
            environment=suite.environment,
        )
        assert demo.returncode == 0, demo.stderr
        audit = insta("audit", environment=suite.environment)
        assert audit.returncode == 0, audit.stdout + audit.stderr

    assert not list(data.glob("*.db*"))
    logged = (data / "suite.log").read_text()
    assert PASSWORD not in logged
    lines = [json.loads(line) for line in logged.splitlines() if line.startswith("{")]
    told = [line for line in lines if line["event"] == "cannot connect to the database"]
    # Of each process and database each reason once: that it stops, that it is not there, that it starts.
    assert 3 <= len(told) <= (3 if mode == "apart" else 6) * 4
    assert [line for line in lines if line["event"] == "connected to the database"]
    assert "Traceback" not in logged


async def _is_well(person: Person, post: posts_pb2.Post) -> bool:
    try:
        return await person.like(post) > 0
    except grpc.aio.AioRpcError as failure:
        if failure.code() is not grpc.StatusCode.UNAVAILABLE:
            raise
        return False


async def _is_gone(person: Person, post: posts_pb2.Post) -> bool:
    try:
        await person.see(post)
    except grpc.aio.AioRpcError as gone:
        return gone.code() is grpc.StatusCode.NOT_FOUND
    return False


@pytest.mark.parametrize("value", WRONG)
def test_what_is_no_address_of_a_database_is_told_without_its_password(value: str) -> None:
    with pytest.raises(SettingError, match=USERS) as wrong:
        settings.from_environment({USERS: value})

    assert SECRET not in str(wrong.value).partition(": must be")[0]


def test_two_services_on_one_database_are_refused() -> None:
    address = f"postgresql://insta:{SECRET}@there/insta"
    with pytest.raises(SettingError, match="INSTA_POSTS_DATABASE_URL") as wrong:
        settings.from_environment({USERS: address, "INSTA_POSTS_DATABASE_URL": address})

    assert USERS in str(wrong.value)
    assert SECRET not in str(wrong.value)


def test_an_option_that_nobody_knows_is_refused(server: Server, tmp_path: Path) -> None:
    assert USERS in refused(environment(tmp_path, **{USERS: f"{server.url()}?colour={SECRET}"}))


@pytest.mark.parametrize("command", [("token", "boss"), ("migrate",), ("up", "--workers", "2"), ("apart",)])
def test_who_is_not_let_in_is_told_by_which_setting_whatever_the_command(
    server: Server, tmp_path: Path, command: tuple[str, ...]
) -> None:
    sentence = refused(environment(tmp_path, **{USERS: server.url(password=f"{SECRET}%40x")}), *command)

    assert 'password authentication failed for user "insta"' in sentence
    assert sentence.endswith(f"Correct {USERS}, or the server.")


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (lambda there: there.url("nowhere"), 'database "nowhere" does not exist'),
        (lambda there: there.url(user="somebody"), "somebody"),
        (lambda there: there.url().replace(f":{PASSWORD}", ""), "no password supplied"),
        (lambda there: there.url().replace(str(there.port), "99999"), "99999"),
        (lambda there: there.url().replace("127.0.0.1", "there..example"), "host"),
        (lambda there: there.url(password=f"{SECRET}%zz"), "cannot read this address"),
        (lambda there: f"{there.url()}?sslmode=require", "does not support SSL"),
        (lambda there: f"{there.url()}?sslmode=sometimes", "sometimes"),
        (lambda there: f"{there.url()}?connect_timeout=soon", "soon"),
    ],
    ids=["database", "user", "no password", "port", "host", "percent", "plaintext", "sslmode", "timeout"],
)
def test_what_only_a_person_can_mend_is_told_at_once(
    server: Server, tmp_path: Path, wrong: Callable[[Server], str], said: str
) -> None:
    began = time.monotonic()

    sentence = refused(environment(tmp_path, **{USERS: wrong(server)}))

    assert said in sentence
    assert sentence.endswith(f"Correct {USERS}, or the server.")
    assert time.monotonic() - began < 10


@pytest.mark.parametrize(
    ("away", "said"),
    [
        (lambda there: there.url().replace(str(there.port), "1"), "refused"),
        # Where containers start together a name is known when its container is there.
        (lambda there: there.url().replace("127.0.0.1", "nobody.invalid"), "nobody.invalid"),
        (lambda there: "postgresql:///users?host=/nowhere", "/nowhere"),
    ],
    ids=["port", "host", "socket"],
)
def test_a_server_that_is_away_is_waited_for_and_then_told_of(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, away: Callable[[Server], str], said: str
) -> None:
    monkeypatch.setattr(postgres_database, "_START_SECONDS", 0.2)
    given = environment(tmp_path, **{USERS: away(server)})

    sentence = refused(given)
    ended = insta_here("token", "boss", environment=given)

    assert said in sentence
    assert sentence.endswith(f"Start the server, or correct {USERS}.")
    assert ended.stderr.count("cannot connect to the database") == 1


def test_who_waits_for_a_server_ends_with_ctrl_c(server: Server, tmp_path: Path) -> None:
    away = server.url().replace(str(server.port), "1")
    command = [sys.executable, "-m", "suite", "serve", "users", "--insecure-plaintext"]
    given = environment(tmp_path, **{USERS: away})
    with subprocess.Popen(command, env=given, stderr=subprocess.PIPE, text=True) as waiting:
        assert waiting.stderr is not None
        assert "cannot connect to the database" in waiting.stderr.readline()
        began = time.monotonic()
        waiting.send_signal(signal.SIGINT)
        assert waiting.wait(30) != 0
        assert time.monotonic() - began < 10


def test_a_server_that_shows_a_certificate_that_proves_nothing_is_refused(tmp_path: Path) -> None:
    authority = Authority()
    shown = authority.issue(tmp_path / "shown", "localhost")
    expired = authority.issue(tmp_path / "expired", "localhost", ends=-1)
    another = Authority().issue(tmp_path / "another", "localhost")
    with postgres_server.running(certificate=shown) as server:
        url = server.url().replace("127.0.0.1", "localhost")
        trusted = f"{url}?sslmode=verify-full&sslrootcert={shown / 'ca.crt'}"
        strange = f"{url}?sslmode=verify-full&sslrootcert={another / 'ca.crt'}"
        elsewhere = f"{server.url()}?sslmode=verify-full&sslrootcert={shown / 'ca.crt'}"
        missing = f"{url}?sslmode=verify-full&sslrootcert={tmp_path / 'nowhere.crt'}"

        def said(address: str) -> str:
            return refused(environment(tmp_path, **{USERS: address}))

        assert "an authority in sslrootcert" in said(strange)
        assert 'does not match host name "127.0.0.1"' in said(elsewhere)
        assert "nowhere.crt" in said(missing)
        for wrong in (strange, elsewhere, missing):
            assert said(wrong).endswith(f"Correct {USERS}, or the server.")
        # Nobody is there, but the database is.
        there = said(trusted)
        assert "boss" in there
        server.show(expired)
        # It takes a moment until the server does.
        while (sentence := said(trusted)) == there:
            time.sleep(0.05)
        assert "Has its certificate expired" in sentence
        assert USERS in sentence


@pytest.mark.parametrize(("command", "instead"), [("backup", "pg_dump"), ("restore", "pg_restore")])
def test_what_is_for_files_names_what_does_it_on_a_server(
    server: Server, tmp_path: Path, command: str, instead: str
) -> None:
    sentence = refused(environment(tmp_path, **{USERS: server.url()}), command, str(tmp_path / "copy"))

    assert USERS in sentence
    assert instead in sentence


def test_a_package_that_is_missing_is_named(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    for name in ("postgres", "postgres_database", "postgres_leases"):
        monkeypatch.delitem(sys.modules, f"chassis.{name}")
        monkeypatch.delattr(chassis, name)

    assert "pip install 'insta[postgresql]'" in refused(environment(tmp_path, **{USERS: server.url()}))
