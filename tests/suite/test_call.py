"""`insta call`: the public API from a terminal, by reflection."""

from __future__ import annotations

import json
import socket
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest_asyncio
from click.testing import CliRunner

from suite.main import main
from tests.people import People, Person
from tests.running import PASSWORD, RunningSuite, environment, insta_here


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def people(together: RunningSuite) -> AsyncIterator[People]:
    made = People(together.address)
    yield made
    await made.channel.close()


@pytest_asyncio.fixture
async def eve(people: People) -> Person:
    return await people.join(first_name="Eve")


def call(suite: RunningSuite, *arguments: str, stdin: str = "", **variables: str) -> subprocess.CompletedProcess[str]:
    return insta_here(
        "call", "--address", suite.address, *arguments, environment={**suite.environment, **variables}, stdin=stdin
    )


def told(failed: subprocess.CompletedProcess[str]) -> dict[str, list[str]]:
    """What a failed call said on standard error, by its labels."""
    assert failed.returncode == 1
    assert failed.stdout == ""
    said: dict[str, list[str]] = {}
    for line in failed.stderr.splitlines():
        label, _, text = line.partition(":")
        said.setdefault(label, []).append(text.strip())
    return said


async def test_a_method_is_called_by_the_short_name_of_its_service(together: RunningSuite, eve: Person) -> None:
    post = await eve.post("Low tide")

    answered = call(together, "PostService.GetPost", f"post_id={post.id}", "--token", eve.token)

    assert answered.returncode == 0, answered.stderr
    shown = json.loads(answered.stdout)["post"]
    assert (shown["id"], shown["title"], shown["author"]["username"]) == (str(post.id), "Low tide", eve.username)


async def test_every_way_to_name_a_method_is_understood(together: RunningSuite, eve: Person) -> None:
    names = [
        "AccountService.GetAccount",
        "AccountService/GetAccount",
        "insta.gateway.v1.AccountService.GetAccount",
        "insta.gateway.v1.AccountService/GetAccount",
    ]

    answers = [call(together, name, INSTA_TOKEN=eve.token) for name in names]

    assert {json.loads(answer.stdout)["account"]["username"] for answer in answers} == {eve.username}


async def test_an_operator_calls_as_anybody(together: RunningSuite, eve: Person) -> None:
    answered = call(together, "AccountService.GetAccount", "--as", eve.username)

    assert json.loads(answered.stdout)["account"]["id"] == str(eve.id)


def test_calling_as_somebody_who_does_not_exist_is_told_in_a_sentence(together: RunningSuite) -> None:
    failed = call(together, "AccountService.GetAccount", "--as", "nobody.here")

    assert failed.returncode == 1
    assert "nobody.here" in failed.stderr
    assert "Traceback" not in failed.stderr


async def test_a_list_has_one_argument_for_each_item(together: RunningSuite, eve: Person) -> None:
    pictures = ["https://example.com/1.jpg", "https://example.com/2.jpg"]

    answered = call(
        together, "PostService.CreatePost", "title=[draft] a=b {c}", *(f"image_urls={url}" for url in pictures),
        "--token", eve.token,
    )  # fmt: skip

    made = json.loads(answered.stdout)["post"]
    assert (made["title"], made["imageUrls"]) == ("[draft] a=b {c}", pictures)


async def test_a_list_and_a_message_can_be_given_as_json(together: RunningSuite, eve: Person) -> None:
    listed = call(
        together,
        "PostService.CreatePost",
        "title=Two",
        'image_urls=["https://example.com/1.jpg"]',
        "--token",
        eve.token,
    )
    nested = call(together, "AccountService.UpdateAccount", 'account={"bio": "Hi"}', "--token", eve.token)

    assert json.loads(listed.stdout)["post"]["imageUrls"] == ["https://example.com/1.jpg"]
    assert json.loads(nested.stdout)["account"]["bio"] == "Hi"


async def test_fields_within_a_message_are_reached_by_dots(together: RunningSuite, eve: Person) -> None:
    answered = call(
        together, "AccountService.UpdateAccount", "account.bio=Hi there", "account.firstName=Eva",
        "account.last_name=No", "update_mask=bio,first_name", "--token", eve.token,
    )  # fmt: skip

    account = json.loads(answered.stdout)["account"]
    assert (account["bio"], account["firstName"], account.get("lastName", "")) == ("Hi there", "Eva", "")


async def test_booleans_and_numbers_are_read_by_the_type_of_their_field(together: RunningSuite, eve: Person) -> None:
    answered = call(
        together, "AdminService.ListUsers", "active=true", f"text={eve.username}", "page_size=5", "--as", "boss"
    )

    accounts = json.loads(answered.stdout)["accounts"]
    assert eve.username in {account["username"] for account in accounts}


async def test_the_whole_request_can_be_json_from_standard_input(together: RunningSuite, eve: Person) -> None:
    request = json.dumps({"login": eve.username, "password": PASSWORD})

    answered = call(together, "AccountService.Login", "--data", "@", stdin=request)

    assert json.loads(answered.stdout)["account"]["username"] == eve.username


async def test_a_failure_is_told_with_all_of_its_details(together: RunningSuite, eve: Person) -> None:
    failed = told(call(together, "PostService.CreatePost", "title=", "image_urls=no url", "--token", eve.token))

    assert failed["code"] == ["INVALID_ARGUMENT"]
    assert failed["reason"] == ["INVALID_FIELDS"]
    assert {field.partition(":")[0] for field in failed["field"]} == {"title", "image_urls[0]"}
    assert len(failed["trace id"][0]) == 32
    assert failed["message"][0]


async def test_a_failure_without_violations_tells_its_reason(together: RunningSuite, eve: Person) -> None:
    failed = told(call(together, "PostService.GetPost", f"post_id={2**40}", "--token", eve.token))

    assert (failed["code"], failed["reason"]) == (["NOT_FOUND"], ["POST_NOT_FOUND"])


def test_an_unknown_method_is_answered_with_those_there_are(together: RunningSuite) -> None:
    failed = call(together, "PostService.GetPosts")

    assert failed.returncode == 1
    assert "BatchGetPosts" in failed.stderr
    assert "Traceback" not in failed.stderr


def test_an_unknown_service_is_answered_with_those_there_are(together: RunningSuite) -> None:
    failed = call(together, "PosService.GetPost")

    assert failed.returncode == 1
    assert "insta.gateway.v1.PostService" in failed.stderr


def test_a_service_name_that_several_have_is_answered_with_all_of_them(together: RunningSuite) -> None:
    failed = call(together, "ServerReflection.ServerReflectionInfo")

    assert failed.returncode == 1
    assert "grpc.reflection.v1.ServerReflection" in failed.stderr
    assert "grpc.reflection.v1alpha.ServerReflection" in failed.stderr


def test_an_unknown_field_is_answered_with_those_there_are(together: RunningSuite) -> None:
    top = call(together, "PostService.GetPost", "id=1")
    nested = call(together, "AccountService.UpdateAccount", "account.biography=x")

    assert (top.returncode, nested.returncode) == (1, 1)
    assert "It has: post_id." in top.stderr
    assert "bio" in nested.stderr.partition("It has: ")[2]


def test_values_that_do_not_fit_their_field_are_refused_in_a_sentence(together: RunningSuite) -> None:
    wrong = [
        ("PostService.GetPost", "post_id=abc"),
        ("PostService.GetPost", "post_id=1", "post_id=2"),
        ("PostService.GetPost", "post_id"),
        ("PostService.GetPost", "post_id.deeper=1"),
        ("AdminService.ListUsers", "active=perhaps"),
        ("AccountService.UpdateAccount", "account=x"),
        ("AccountService.UpdateAccount", "account={x"),
        ("PostService.GetPost", "-d", "{"),
        ("PostService.GetPost", "post_id=1", "-d", "{}"),
        ("GetPost",),
    ]

    runner = CliRunner(env={**together.environment, "INSTA_LISTEN": together.address})
    answers = [runner.invoke(main, ["call", *arguments]) for arguments in wrong]

    assert all(isinstance(answer.exception, SystemExit) for answer in answers), answers
    assert all(answer.exit_code in (1, 2) and "Error: " in answer.stderr for answer in answers), answers


def test_a_stream_of_responses_is_printed_as_it_comes(together: RunningSuite) -> None:
    watched = call(together, "Health.Watch", "--timeout", "2")

    assert json.loads(watched.stdout) == {"status": "SERVING"}
    assert "DEADLINE_EXCEEDED" in watched.stderr


def test_without_a_method_all_are_listed_with_what_they_do(together: RunningSuite) -> None:
    listed = call(together)

    assert listed.returncode == 0, listed.stderr
    assert "insta.gateway.v1.PostService:" in listed.stdout
    assert "Likes a post as the caller" in listed.stdout


def test_an_address_without_a_server_is_told_in_a_sentence(tmp_path: Path) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{unused.getsockname()[1]}"

        failed = insta_here("call", "PostService.GetPost", "--address", address, environment=environment(tmp_path))

    assert failed.returncode == 1
    assert f"{address} cannot be reached" in failed.stderr
    assert "Traceback" not in failed.stderr
