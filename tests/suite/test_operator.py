"""The operator's commands: superusers, and tokens for anybody."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import grpc
import pytest
import pytest_asyncio
from click.testing import CliRunner

from insta.gateway.v1 import accounts_pb2, admin_pb2
from suite.main import main
from tests.people import People, Person, failure
from tests.running import PASSWORD, RunningSuite, environment, insta_here, running


@pytest_asyncio.fixture
async def people(together: RunningSuite) -> AsyncIterator[People]:
    made = People(together.address)
    yield made
    await made.channel.close()


def creation(username: str, email: str = "") -> tuple[str, ...]:
    """The command that creates a superuser."""
    named = ("--username", username, "--email", email or f"{username}@example.com")
    return ("superuser", "create", *named, "--password-stdin")


def create(environment: Mapping[str, str], username: str, *options: str) -> subprocess.CompletedProcess[str]:
    """Run the command that creates a superuser."""
    return insta_here(*creation(username), *options, environment=environment, stdin=f"{PASSWORD}\n")


def sentence(*command: str, environment: Mapping[str, str], stdin: str = "") -> str:
    """What a command says that fails, run in this process."""
    result = CliRunner().invoke(main, command, input=stdin, env=environment)
    assert result.exit_code == 1
    assert isinstance(result.exception, SystemExit)
    assert result.stdout == ""
    assert result.stderr.startswith("Error: ")
    return result.stderr


async def account(person: Person) -> accounts_pb2.Account:
    return (await person.accounts.GetAccount(accounts_pb2.GetAccountRequest())).account


async def test_a_superuser_can_be_created_before_the_suite_runs_for_the_first_time(tmp_path: Path) -> None:
    created = create(environment(tmp_path / "var"), "root", "--first-name", "Ada", "--last-name", "Lovelace")
    assert created.returncode == 0, created.stderr

    with running("together", tmp_path / "var", superuser=False) as suite:
        people = People(suite.address)
        root = await people.log_in("root")
        own = await account(root)
        await root.admin.ListUsers(admin_pb2.ListUsersRequest())
        await people.channel.close()

    assert (own.username, own.first_name, own.last_name) == ("root", "Ada", "Lovelace")
    assert created.stdout == f"created the superuser root with the id {own.id}\n"


async def test_a_superuser_can_be_created_while_the_suite_runs(together: RunningSuite, people: People) -> None:
    created = create(together.environment, "second_boss")
    assert created.returncode == 0, created.stderr

    second = await people.log_in("second_boss")

    await second.admin.ListUsers(admin_pb2.ListUsersRequest())
    ana = await people.join()
    request = admin_pb2.SetUserRolesRequest(user_id=ana.id, staff=True)
    assert (await second.admin.SetUserRoles(request)).account.staff


async def test_a_name_and_an_address_belong_to_one_account(together: RunningSuite, people: People) -> None:
    ana = await people.join()

    for command, field in (
        (creation(ana.username.upper(), "other@example.com"), "username"),
        (creation("other_name", f"{ana.username}@EXAMPLE.com"), "email"),
    ):
        said = await asyncio.to_thread(sentence, *command, environment=together.environment, stdin=PASSWORD)
        assert field in said


@pytest.mark.parametrize(
    ("command", "password", "field"),
    [
        (creation("root"), "short", "password"),
        (creation("root"), "", "password"),
        (creation("no spaces"), PASSWORD, "username"),
        (creation("a"), PASSWORD, "username"),
        (creation("root", "nonsense"), PASSWORD, "email"),
        ((*creation("root"), "--first-name", ""), PASSWORD, "first_name"),
    ],
)
def test_a_superuser_keeps_the_rules_of_all_accounts(
    command: tuple[str, ...], password: str, field: str, tmp_path: Path
) -> None:
    assert field in sentence(*command, environment=environment(tmp_path), stdin=password)


@pytest.mark.parametrize("how", ["username", "other capitals", "id"])
async def test_a_token_works_whoever_it_is_for(together: RunningSuite, people: People, how: str) -> None:
    ana = await people.join()
    named = {"username": ana.username, "other capitals": ana.username.upper(), "id": f"id:{ana.id}"}[how]

    printed = insta_here("token", "--raw", named, environment=together.environment)

    assert printed.returncode == 0, printed.stderr
    assert (await account(Person(people.channel, token=printed.stdout.strip()))).id == ana.id


async def test_a_name_of_digits_is_nobodys_id(together: RunningSuite, people: People) -> None:
    # Somebody could otherwise choose the id of another for a name.
    printed = insta_here("token", "--raw", "001", environment=together.environment)

    assert printed.returncode != 0
    assert "Traceback" not in printed.stderr


async def test_a_token_is_printed_as_an_option_for_grpcurl(together: RunningSuite, people: People) -> None:
    ana = await people.join()

    printed = insta_here("token", ana.username, environment=together.environment).stdout

    prefix, suffix = "-H 'authorization: Bearer ", "'\n"
    assert printed.startswith(prefix)
    assert printed.endswith(suffix)
    token = printed.removeprefix(prefix).removesuffix(suffix)
    assert (await account(Person(people.channel, token=token))).id == ana.id


async def test_a_token_of_a_superuser_is_one(together: RunningSuite, people: People) -> None:
    printed = insta_here("token", "--raw", "boss", environment=together.environment)

    boss = Person(people.channel, token=printed.stdout.strip())

    await boss.admin.ListUsers(admin_pb2.ListUsersRequest())


async def test_a_token_that_was_printed_before_the_suite_ever_ran_works(tmp_path: Path) -> None:
    given = environment(tmp_path / "var")
    create(given, "root")
    printed = insta_here("token", "--raw", "root", environment=given)

    with running("together", tmp_path / "var", superuser=False) as suite:
        people = People(suite.address)
        own = await account(Person(people.channel, token=printed.stdout.strip()))
        await people.channel.close()

    assert own.username == "root"


@pytest.mark.parametrize("user", ["nobody", "999999", "0", str(2**63), "9" * 30, "", "no spaces", "x" * 1000])
def test_there_is_no_token_for_nobody(user: str, tmp_path: Path) -> None:
    sentence("token", user, environment=environment(tmp_path))


async def test_there_is_no_token_for_who_is_deactivated(together: RunningSuite, people: People) -> None:
    ana = await people.join()
    boss = await people.superuser()
    await boss.admin.SetUserActive(admin_pb2.SetUserActiveRequest(user_id=ana.id, active=False))

    said = await asyncio.to_thread(sentence, "token", ana.username, environment=together.environment)
    assert "deactivated" in said
    refused = await failure(people.log_in(ana.username))
    assert (refused.code, refused.reason) == (grpc.StatusCode.PERMISSION_DENIED, "ACCOUNT_INACTIVE")
