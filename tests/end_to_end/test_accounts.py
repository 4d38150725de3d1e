"""Accounts through the public API: joining, logging in, and one's own account."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import grpc
import pytest

from insta.gateway.v1 import accounts_pb2, profiles_pb2
from tests.end_to_end.lists import everything
from tests.people import Failure, People, Person, failure, refused_soon
from tests.running import PASSWORD

Account = accounts_pb2.Account


def registration(username: str, **fields: str) -> accounts_pb2.RegisterRequest:
    wanted = {"email": f"{username}@example.com", "password": PASSWORD, "first_name": "Pat", **fields}
    return accounts_pb2.RegisterRequest(username=username, **wanted)


def log_in(people: People, login: str, password: str = PASSWORD) -> Awaitable[accounts_pb2.LoginResponse]:
    return people.stranger.accounts.Login(accounts_pb2.LoginRequest(login=login, password=password))


def update(person: Person, *paths: str, **fields: str) -> Awaitable[accounts_pb2.UpdateAccountResponse]:
    request = accounts_pb2.UpdateAccountRequest(account=Account(**fields))
    request.update_mask.paths.extend(paths)
    return person.accounts.UpdateAccount(request)


def change_password(person: Person, current: str, new: str) -> Awaitable[accounts_pb2.ChangePasswordResponse]:
    request = accounts_pb2.ChangePasswordRequest(current_password=current, new_password=new)
    return person.accounts.ChangePassword(request)


def delete(person: Person, password: str = PASSWORD) -> Awaitable[accounts_pb2.DeleteAccountResponse]:
    return person.accounts.DeleteAccount(accounts_pb2.DeleteAccountRequest(password=password))


def refused(failed: Failure) -> tuple[grpc.StatusCode, str]:
    return failed.code, failed.reason


WRONG_CREDENTIALS = (grpc.StatusCode.UNAUTHENTICATED, "WRONG_CREDENTIALS")
SESSION_ENDED = (grpc.StatusCode.UNAUTHENTICATED, "SESSION_ENDED")
WRONG_PASSWORD = (grpc.StatusCode.PERMISSION_DENIED, "WRONG_PASSWORD")


async def test_who_registers_has_an_account_with_what_they_said(people: People, ana: Person) -> None:
    name = f"Joining.{ana.id}"
    request = registration(name, first_name="Zoë", last_name="O'Hara", bio="Line one\nline two")

    registered = (await people.stranger.accounts.Register(request)).account

    assert (registered.username, registered.email) == (name, f"{name}@example.com")
    assert (registered.first_name, registered.last_name, registered.bio) == ("Zoë", "O'Hara", "Line one\nline two")
    assert (registered.active, registered.staff, registered.superuser) == (True, False, False)
    assert registered.create_time == registered.update_time
    assert registered.id > ana.id
    assert await (await people.log_in(name)).account() == registered


@pytest.mark.parametrize("spell", [str, str.upper, str.lower, str.swapcase])
async def test_login_takes_username_and_email_in_any_case(
    people: People, ana: Person, spell: Callable[[str], str]
) -> None:
    name = f"Mixed.Case{ana.id}"
    person = await people.join(username=name)

    by_name = await log_in(people, spell(name))
    by_email = await log_in(people, spell(f"{name}@example.com"))

    assert by_name.account == by_email.account == await person.account()
    assert by_name.expire_time.seconds > by_name.account.create_time.seconds + 14 * 60


async def test_wrong_passwords_and_unknown_names_answer_alike(people: People, ana: Person) -> None:
    answers = [
        await failure(log_in(people, ana.username, "not the password")),
        await failure(log_in(people, ana.username, PASSWORD.upper())),
        await failure(log_in(people, f"{ana.username}@example.com", "not the password")),
        await failure(log_in(people, f"nobody{ana.id}")),
        await failure(log_in(people, f"nobody{ana.id}@example.com")),
        await failure(log_in(people, "Not a name at all! %_")),
    ]

    assert {(answer.code, answer.reason) for answer in answers} == {WRONG_CREDENTIALS}
    assert len({(answer.text, *answer.fields) for answer in answers}) == 1


async def test_a_name_and_an_address_belong_to_one_account_in_whatever_capitals(people: People, ana: Person) -> None:
    register = people.stranger.accounts.Register
    name = f"Unique{ana.id}"
    await people.join(username=name)

    same_name = await failure(register(registration(name.upper(), email=f"other{ana.id}@example.com")))
    same_email = await failure(register(registration(f"other{ana.id}", email=f"{name.lower()}@EXAMPLE.com")))

    assert refused(same_name) == (grpc.StatusCode.ALREADY_EXISTS, "USERNAME_TAKEN")
    assert refused(same_email) == (grpc.StatusCode.ALREADY_EXISTS, "EMAIL_TAKEN")
    assert refused(await failure(log_in(people, f"other{ana.id}"))) == WRONG_CREDENTIALS


@pytest.mark.parametrize("contested", ["username", "email"])
async def test_of_eight_registrations_at_once_one_succeeds(people: People, ana: Person, contested: str) -> None:
    def request(number: int) -> accounts_pb2.RegisterRequest:
        own = f"race{number}_{contested}{ana.id}"
        shared = f"Race_{contested}{ana.id}" if number % 2 else f"RACE_{contested}{ana.id}"
        if contested == "username":
            return registration(shared, email=f"{own}@example.com")
        return registration(own, email=f"{shared}@example.com")

    answers = await asyncio.gather(
        *(people.stranger.accounts.Register(request(number)) for number in range(8)), return_exceptions=True
    )

    lost = [Failure(answer) for answer in answers if isinstance(answer, grpc.aio.AioRpcError)]
    expected = grpc.StatusCode.ALREADY_EXISTS, f"{contested.upper()}_TAKEN"
    assert [refused(failed) for failed in lost] == [expected] * 7


async def test_an_update_changes_what_its_mask_names(ana: Person) -> None:
    before = await ana.account()

    after = (await update(ana, "last_name", "bio", first_name="Ignored", last_name="Ray", bio="Hello")).account

    assert (after.first_name, after.last_name, after.bio) == (before.first_name, "Ray", "Hello")
    assert after.update_time.ToNanoseconds() > before.update_time.ToNanoseconds()
    assert after.create_time == before.create_time
    assert await ana.account() == after


async def test_an_update_without_a_mask_changes_what_is_not_empty(ana: Person) -> None:
    await update(ana, first_name="Ana", last_name="Ray", bio="Hello")

    after = (await update(ana, bio="Bye")).account

    assert (after.first_name, after.last_name, after.bio) == ("Ana", "Ray", "Bye")


async def test_an_empty_value_in_the_mask_empties_what_may_be_empty(ana: Person) -> None:
    await update(ana, last_name="Ray", bio="Hello")

    after = (await update(ana, "last_name", "bio")).account

    assert (after.last_name, after.bio) == ("", "")


async def test_a_mask_may_name_a_field_twice(ana: Person) -> None:
    assert (await update(ana, "bio", "bio", bio="Hello")).account.bio == "Hello"


@pytest.mark.parametrize("field", ["username", "email", "first_name"])
async def test_what_must_not_be_empty_cannot_be_emptied(ana: Person, field: str) -> None:
    before = await ana.account()

    failed = await failure(update(ana, field))

    assert refused(failed) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELDS")
    assert failed.fields == [f"account.{field}"]
    assert await ana.account() == before


@pytest.mark.parametrize("path", ["password", "id", "staff", "superuser", "account.bio", "private_details.email", ""])
async def test_a_mask_that_names_something_else_is_refused(ana: Person, path: str) -> None:
    before = await ana.account()

    failed = await failure(update(ana, "bio", path, bio="Hello"))

    assert refused(failed) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELDS")
    assert failed.fields == ["update_mask"]
    assert await ana.account() == before


async def test_nobody_gives_themselves_a_role_or_another_id(ana: Person, ben: Person) -> None:
    request = accounts_pb2.UpdateAccountRequest(account=Account(id=ben.id, staff=True, superuser=True, bio="Mine"))

    after = (await ana.accounts.UpdateAccount(request)).account

    assert (after.id, after.staff, after.superuser, after.bio) == (ana.id, False, False, "Mine")
    assert (await ben.account()).bio == ""


async def test_repeating_an_update_changes_nothing_more(ana: Person) -> None:
    first = (await update(ana, bio="Hello")).account
    second = (await update(ana, bio="Hello")).account

    assert second == first


async def test_an_update_to_a_name_or_address_of_somebody_is_refused(ana: Person, ben: Person) -> None:
    before = await ana.account()

    name = await failure(update(ana, username=ben.username.upper(), bio="Hello"))
    email = await failure(update(ana, email=f"{ben.username}@EXAMPLE.com", bio="Hello"))

    assert refused(name) == (grpc.StatusCode.ALREADY_EXISTS, "USERNAME_TAKEN")
    assert refused(email) == (grpc.StatusCode.ALREADY_EXISTS, "EMAIL_TAKEN")
    assert await ana.account() == before


async def test_a_name_can_change_its_capitals_and_one_that_was_left_is_free(people: People, ana: Person) -> None:
    left = ana.username

    await update(ana, username=left.upper())
    await update(ana, username=f"moved{ana.id}", email=f"moved{ana.id}@example.com")
    successor = await people.join(username=left)

    assert successor.id != ana.id
    assert (await log_in(people, f"moved{ana.id}")).account.id == ana.id
    assert (await log_in(people, left)).account.id == successor.id


async def test_a_password_is_changed_by_who_knows_it(people: People, ana: Person) -> None:
    wrong = await failure(change_password(ana, "not the password", "the next password"))
    assert refused(wrong) == WRONG_PASSWORD
    assert (await log_in(people, ana.username)).account.id == ana.id

    await change_password(ana, PASSWORD, "the next password")

    assert refused(await failure(log_in(people, ana.username))) == WRONG_CREDENTIALS
    assert (await log_in(people, ana.username, "the next password")).account.id == ana.id


async def test_of_eight_password_changes_at_once_one_succeeds(people: People, ana: Person) -> None:
    answers = await asyncio.gather(
        *(change_password(ana, PASSWORD, f"password number {number}") for number in range(8)), return_exceptions=True
    )

    (winner,) = (number for number, answer in enumerate(answers) if not isinstance(answer, BaseException))
    lost = [Failure(answer) for answer in answers if isinstance(answer, grpc.aio.AioRpcError)]
    assert len(lost) == 7
    # Who comes later finds another password, or the session ended with the old one.
    assert {refused(failed) for failed in lost} <= {WRONG_PASSWORD, SESSION_ENDED}
    assert (await log_in(people, ana.username, f"password number {winner}")).account.id == ana.id


@pytest.mark.parametrize("character", ["x", "é", "語", "😀"])
async def test_all_characters_of_the_longest_password_count(people: People, ana: Person, character: str) -> None:
    password = character * 255
    person = await people.join(username=f"long{ana.id}", password=password + "1")

    assert (await log_in(people, person.username, password + "1")).account.id == person.id
    for other in (password + "2", password, password[:-1] + "1", character * 18):
        assert refused(await failure(log_in(people, person.username, other))) == WRONG_CREDENTIALS


async def test_a_password_is_the_same_however_its_characters_were_composed(people: People, ana: Person) -> None:
    person = await people.join(username=f"composed{ana.id}", password="cafe\N{COMBINING ACUTE ACCENT} noir")

    login = await log_in(people, person.username, "caf\N{LATIN SMALL LETTER E WITH ACUTE} noir")

    assert login.account.id == person.id


async def test_an_account_is_deleted_by_who_knows_its_password(people: People, ana: Person, ben: Person) -> None:
    wrong = await failure(delete(ana, "not the password"))
    assert refused(wrong) == WRONG_PASSWORD
    assert (await log_in(people, ana.username)).account.id == ana.id

    await delete(ana)

    assert refused(await failure(log_in(people, ana.username))) == WRONG_CREDENTIALS
    assert refused(await failure(log_in(people, f"{ana.username}@example.com"))) == WRONG_CREDENTIALS
    for gone in (ben.profile(ana), everything(ben.profiles.ListProfilePosts, _posts_of(ana))):
        assert refused(await failure(gone)) == (grpc.StatusCode.NOT_FOUND, "USER_NOT_FOUND")


async def test_the_account_of_a_deleted_person_answers_nothing_to_their_token(ana: Person) -> None:
    await delete(ana)

    # What the users service does is exact at once: it knows that the account is gone, if not yet that the session is.
    for call in (update(ana, bio="Hello"), change_password(ana, PASSWORD, "the next password"), delete(ana)):
        assert (await failure(call)).code is grpc.StatusCode.UNAUTHENTICATED
    for soon in (ana.account, ana.post, lambda: ana.profile(ana)):
        assert (await refused_soon(soon)).code is grpc.StatusCode.UNAUTHENTICATED


async def test_a_successor_to_a_deleted_name_inherits_nothing(people: People, ana: Person, ben: Person) -> None:
    await ana.post()
    await ben.follow(ana)
    await delete(ana)

    successor = await people.join(username=ana.username)

    seen = await ben.profile(successor)
    assert successor.id > ana.id
    assert (seen.post_count, seen.follower_count, seen.viewer_follows) == (0, 0, False)


def _posts_of(person: Person) -> profiles_pb2.ListProfilePostsRequest:
    return profiles_pb2.ListProfilePostsRequest(user_id=person.id)
