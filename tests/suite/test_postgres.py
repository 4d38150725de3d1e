"""The suite on a PostgreSQL server, by its settings alone, and what is said of settings that do not work."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

import chassis
from chassis import postgres, settings
from chassis.settings import SettingError
from tests import postgres_server
from tests.certificates import Authority
from tests.people import People
from tests.postgres_server import PASSWORD, Server
from tests.running import DATABASES, environment, insta, insta_here, running

pytestmark = postgres_server.needed
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
    sentence = ended.stderr.splitlines()[-1]
    assert sentence.startswith("Error: "), ended.stderr
    assert SECRET not in ended.stderr + ended.stdout
    assert PASSWORD not in ended.stderr + ended.stdout
    return sentence


@pytest.mark.parametrize("mode", ["together", "workers"])
async def test_people_use_a_suite_whose_databases_are_on_a_server(server: Server, tmp_path: Path, mode: str) -> None:
    data = tmp_path / "data"
    with running(mode, data, **on(server, data)) as suite:
        people = People(suite.address)
        ana, ben = await people.join(), await people.join()
        post = await ana.post()
        await ben.like(post)
        assert (await ben.see(post)).like_count == 1
        await people.channel.close()
        demo = insta(
            "demo",
            "--users",
            "20",
            "--posts",
            "30",
            "--likes",
            "40",
            *("--comments", "40", "--follows", "40"),
            environment=suite.environment,
        )
        assert demo.returncode == 0, demo.stderr
        audit = insta("audit", environment=suite.environment)
        assert audit.returncode == 0, audit.stdout + audit.stderr

    assert not list(data.glob("*.db*"))
    assert PASSWORD not in (data / "suite.log").read_text()


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


@pytest.mark.parametrize(
    ("change", "said"),
    [({"password": SECRET}, "password"), ({"database": "nowhere"}, "nowhere"), ({"user": "somebody"}, "somebody")],
    ids=["password", "database", "user"],
)
def test_who_is_not_let_in_is_told_by_which_setting(
    server: Server, tmp_path: Path, change: dict[str, str], said: str
) -> None:
    sentence = refused(environment(tmp_path, **{USERS: server.url(**change)}))

    assert USERS in sentence
    assert said in sentence


def test_a_server_that_is_away_is_waited_for_and_then_told_of(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres, "_START_SECONDS", 1.0)
    away = server.url().replace(str(server.port), "1")

    ended = insta_here("token", "boss", environment=environment(tmp_path, **{USERS: away}))

    assert "waiting for the database server" in ended.stderr
    assert USERS in ended.stderr.splitlines()[-1]
    assert "refused" in ended.stderr.splitlines()[-1]
    assert PASSWORD not in ended.stderr


def test_a_server_that_shows_somebody_elses_certificate_is_refused(tmp_path: Path) -> None:
    shown = Authority().issue(tmp_path / "shown", "localhost")
    another = Authority().issue(tmp_path / "another", "localhost")
    with postgres_server.running(certificate=shown) as server:
        url = server.url().replace("127.0.0.1", "localhost")
        trusted = f"{url}?sslmode=verify-full&sslrootcert={shown / 'ca.crt'}"
        strange = f"{url}?sslmode=verify-full&sslrootcert={another / 'ca.crt'}"
        elsewhere = f"{server.url()}?sslmode=verify-full&sslrootcert={shown / 'ca.crt'}"

        for wrong in (strange, elsewhere):
            sentence = refused(environment(tmp_path, **{USERS: wrong}))
            assert USERS in sentence
            assert "SSL" in sentence or "certificate" in sentence
        # Nobody is there, but the database is.
        assert "boss" in refused(environment(tmp_path, **{USERS: trusted}))


@pytest.mark.parametrize(("command", "instead"), [("backup", "pg_dump"), ("restore", "pg_restore")])
def test_what_is_for_files_names_what_does_it_on_a_server(
    server: Server, tmp_path: Path, command: str, instead: str
) -> None:
    sentence = refused(environment(tmp_path, **{USERS: server.url()}), command, str(tmp_path / "copy"))

    assert USERS in sentence
    assert instead in sentence


def test_a_package_that_is_missing_is_named(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    monkeypatch.delitem(sys.modules, "chassis.postgres")
    monkeypatch.delattr(chassis, "postgres")

    assert "pip install 'insta[postgresql]'" in refused(environment(tmp_path, **{USERS: server.url()}))
