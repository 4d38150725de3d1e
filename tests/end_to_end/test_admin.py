"""What staff and superusers can do with the accounts of others, through the public API."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from pathlib import Path
from typing import Any

import grpc
import pytest
import pytest_asyncio

from insta.gateway.v1 import accounts_pb2, admin_pb2
from tests.end_to_end.lists import everything
from tests.people import Failure, People, Person, failure, refused_soon
from tests.running import PASSWORD, running

NOBODY = 2**40
USER_NOT_FOUND = (grpc.StatusCode.NOT_FOUND, "USER_NOT_FOUND")
STAFF_ONLY = (grpc.StatusCode.PERMISSION_DENIED, "STAFF_ONLY")
SUPERUSER_ONLY = (grpc.StatusCode.PERMISSION_DENIED, "SUPERUSER_ONLY")
WRONG_PASSWORD = (grpc.StatusCode.PERMISSION_DENIED, "WRONG_PASSWORD")
SESSION_ENDED = (grpc.StatusCode.UNAUTHENTICATED, "SESSION_ENDED")
ACCOUNT_INACTIVE = (grpc.StatusCode.PERMISSION_DENIED, "ACCOUNT_INACTIVE")
LAST_SUPERUSER = (grpc.StatusCode.FAILED_PRECONDITION, "LAST_SUPERUSER")


def refused(failed: Failure) -> tuple[grpc.StatusCode, str]:
    return failed.code, failed.reason


def set_active(actor: Person, user_id: int, active: bool) -> Awaitable[admin_pb2.SetUserActiveResponse]:
    return actor.admin.SetUserActive(admin_pb2.SetUserActiveRequest(user_id=user_id, active=active))


def set_roles(
    actor: Person, user_id: int, staff: bool | None = None, superuser: bool | None = None
) -> Awaitable[admin_pb2.SetUserRolesResponse]:
    return actor.admin.SetUserRoles(admin_pb2.SetUserRolesRequest(user_id=user_id, staff=staff, superuser=superuser))


def delete_user(actor: Person, user_id: int) -> Awaitable[admin_pb2.DeleteUserResponse]:
    return actor.admin.DeleteUser(admin_pb2.DeleteUserRequest(user_id=user_id))


async def names(actor: Person, **filters: Any) -> list[str]:
    """The usernames that a search finds."""
    found = await everything(actor.admin.ListUsers, admin_pb2.ListUsersRequest(**filters))
    return [account.username for account in found]


async def join_as(people: People, boss: Person, **roles: bool) -> Person:
    person = await people.join()
    await set_roles(boss, person.id, **roles)
    return await people.log_in(person.username)


@pytest_asyncio.fixture
async def staff(people: People, boss: Person) -> Person:
    return await join_as(people, boss, staff=True)


@pytest_asyncio.fixture
async def chief(people: People, boss: Person) -> Person:
    """A superuser beside the boss, who can be lost."""
    return await join_as(people, boss, superuser=True)


async def test_what_is_for_staff_is_for_no_other_person(ana: Person, ben: Person) -> None:
    before = await ben.account()
    calls = [names(ana), set_active(ana, ben.id, False), delete_user(ana, ben.id), set_active(ana, ana.id, True)]

    for call in calls:
        assert refused(await failure(call)) == STAFF_ONLY
    assert await ben.account() == before


async def test_users_are_found_by_activity_and_role(people: People, staff: Person, boss: Person) -> None:
    prefix = f"filter{staff.id}_"
    plain, helper, chief, idle, both = [await people.join(username=f"{prefix}{number}") for number in range(5)]
    await set_roles(boss, helper.id, staff=True)
    await set_roles(boss, chief.id, superuser=True)
    await set_active(boss, idle.id, False)
    await set_roles(boss, both.id, staff=True)
    await set_active(boss, both.id, False)

    expected = {
        (None, None): [both, idle, chief, helper, plain],
        (True, None): [chief, helper, plain],
        (False, None): [both, idle],
        (None, True): [both, chief, helper],
        (None, False): [idle, plain],
        (True, True): [chief, helper],
        (True, False): [plain],
        (False, True): [both],
        (False, False): [idle],
    }
    for (active, of_staff), found in expected.items():
        listed = await names(staff, active=active, staff=of_staff, text=prefix)
        assert listed == [person.username for person in found], (active, of_staff)


async def test_a_listed_account_shows_all_that_its_owner_sees(staff: Person, ana: Person) -> None:
    (listed,) = await everything(staff.admin.ListUsers, admin_pb2.ListUsersRequest(text=f"{ana.username}@example.com"))

    assert listed == await ana.account()
    assert listed.email == f"{ana.username}@example.com"


@pytest.mark.parametrize(
    ("first", "last", "text"),
    [
        ("Percent%Sign", "", "percent%sign"),
        ("Under_Score", "", "UNDER_SCORE"),
        ("Back\\Slash", "", "back\\slash"),
        ("O'Hara", "", "o'hara"),
        ('Quo"te', "", 'QUO"TE'),
        ("Pat", "McIntyre", "mcintyre"),
        ("Zoë", "", "zoë"),
        ("Émile", "", "émile"),
        ("Pat", "ŞIMŞEK", "şimşek"),
        ("Ольга", "", "ОЛЬГА"),
        ("Straße", "", "STRASSE"),
    ],
)
async def test_a_search_finds_names_whatever_their_case(
    people: People, staff: Person, first: str, last: str, text: str
) -> None:
    person = await people.join(first_name=first, last_name=last)
    decoy = await people.join(first_name="PercentXSign UnderXScore", last_name="BackXSlash")

    found = await names(staff, text=text)

    assert person.username in found
    assert decoy.username not in found


@pytest.mark.parametrize("text", ["%", "%%", "_%", "\\", "%'--", "a%b"])
async def test_a_wildcard_in_a_search_stands_for_itself(ana: Person, staff: Person, text: str) -> None:
    assert ana.username not in await names(staff, text=text)


async def test_a_search_looks_into_username_address_first_and_last_name(people: People, staff: Person) -> None:
    key = f"needle{staff.id}x"
    found = [
        await people.join(username=f"a_{key}", email=f"a{staff.id}@example.com"),
        await people.join(email=f"b_{key}@example.com"),
        await people.join(first_name=f"A {key.title()} B"),
        await people.join(last_name=key.upper()),
    ]
    await people.join()

    assert await names(staff, text=key.upper()) == [person.username for person in reversed(found)]


async def test_who_is_deactivated_cannot_log_in_until_activated(people: People, staff: Person, ana: Person) -> None:
    post = await ana.post()

    deactivated = (await set_active(staff, ana.id, False)).account

    assert not deactivated.active
    login = accounts_pb2.LoginRequest(login=ana.username, password=PASSWORD)
    assert refused(await failure(people.stranger.accounts.Login(login))) == ACCOUNT_INACTIVE
    wrong = accounts_pb2.LoginRequest(login=ana.username, password="not the password")
    assert (await failure(people.stranger.accounts.Login(wrong))).reason == "WRONG_CREDENTIALS"
    assert (await staff.profile(ana)).post_count == 1
    assert (await staff.see(post)).author.username == ana.username
    assert (await set_active(staff, ana.id, False)).account == deactivated

    activated = (await set_active(staff, ana.id, True)).account

    assert activated.active
    assert (await people.log_in(ana.username)).id == ana.id
    assert (await set_active(staff, ana.id, True)).account == activated


async def test_staff_delete_an_account(people: People, staff: Person, ana: Person) -> None:
    await delete_user(staff, ana.id)

    assert (await failure(people.log_in(ana.username))).reason == "WRONG_CREDENTIALS"
    assert refused(await failure(staff.profile(ana))) == USER_NOT_FOUND
    assert refused(await failure(delete_user(staff, ana.id))) == USER_NOT_FOUND


async def test_an_account_that_does_not_exist_is_not_found(chief: Person) -> None:
    for call in (set_active(chief, NOBODY, True), delete_user(chief, NOBODY), set_roles(chief, NOBODY, staff=True)):
        assert refused(await failure(call)) == USER_NOT_FOUND


async def test_staff_cannot_touch_staff(people: People, staff: Person, boss: Person, chief: Person) -> None:
    colleague = await join_as(people, boss, staff=True)

    for person in (colleague, chief):
        before = await person.account()
        for call in (
            set_active(staff, person.id, False),
            set_active(staff, person.id, True),
            delete_user(staff, person.id),
        ):
            assert refused(await failure(call)) == SUPERUSER_ONLY
        assert await person.account() == before


async def test_superusers_change_staff_and_other_superusers(
    people: People, staff: Person, boss: Person, chief: Person
) -> None:
    assert not (await set_active(chief, staff.id, False)).account.active
    await delete_user(chief, staff.id)
    assert refused(await failure(chief.profile(staff))) == USER_NOT_FOUND

    assert not (await set_active(boss, chief.id, False)).account.active
    assert not (await set_roles(boss, chief.id, superuser=False)).account.superuser
    await delete_user(boss, chief.id)
    assert refused(await failure(boss.profile(chief))) == USER_NOT_FOUND


async def test_roles_are_set_by_superusers_only(staff: Person, ana: Person, ben: Person) -> None:
    for actor in (staff, ana):
        for target in (actor, ben):
            assert refused(await failure(set_roles(actor, target.id, staff=True, superuser=True))) == SUPERUSER_ONLY
    assert not (await ben.account()).staff


async def test_a_role_that_is_not_set_stays(people: People, chief: Person, ana: Person) -> None:
    def roles(response: admin_pb2.SetUserRolesResponse) -> tuple[bool, bool]:
        return response.account.staff, response.account.superuser

    assert roles(await set_roles(chief, ana.id, staff=True)) == (True, False)
    assert roles(await set_roles(chief, ana.id, superuser=True)) == (True, True)
    assert roles(await set_roles(chief, ana.id, staff=False)) == (False, True)
    assert roles(await set_roles(chief, ana.id, superuser=False)) == (False, False)
    again = await set_roles(chief, ana.id, staff=False, superuser=False)
    assert again.account == await (await people.log_in(ana.username)).account()


async def test_a_new_role_counts_from_the_next_login(people: People, chief: Person, ana: Person) -> None:
    await set_roles(chief, ana.id, staff=True)

    assert refused(await refused_soon(ana.account)) == SESSION_ENDED
    assert ana.username in await names(await people.log_in(ana.username), text=ana.username)


async def test_who_lost_a_role_changes_nobody_with_the_token_of_before(
    people: People, chief: Person, staff: Person, ana: Person
) -> None:
    second = await join_as(people, chief, superuser=True)
    await set_roles(chief, staff.id, staff=False)
    await set_roles(chief, second.id, superuser=False)

    for call in (set_active(staff, ana.id, False), delete_user(staff, ana.id), set_roles(second, ana.id, staff=True)):
        assert refused(await failure(call)) == SESSION_ENDED
    assert (await ana.account()).active


async def test_staff_who_were_deactivated_see_no_private_details(people: People, chief: Person, ana: Person) -> None:
    former = await join_as(people, chief, staff=True)
    await set_active(chief, former.id, False)

    # The account was looked at, or it was heard already that its session ended.
    failed = await failure(former.admin.ListUsers(admin_pb2.ListUsersRequest()))
    assert refused(failed) in (ACCOUNT_INACTIVE, SESSION_ENDED)


async def test_ones_own_account_is_not_deleted_by_way_of_administration(chief: Person, staff: Person) -> None:
    for actor in (chief, staff):
        assert refused(await failure(delete_user(actor, actor.id))) == WRONG_PASSWORD
        assert (await actor.account()).active


async def test_the_last_superuser_cannot_be_lost(tmp_path: Path) -> None:
    with running("together", tmp_path / "var") as suite:
        people = People(suite.address)
        boss = await people.superuser()
        staff = await join_as(people, boss, staff=True)
        idle = await join_as(people, boss, superuser=True)
        await set_active(boss, idle.id, False)
        before = await boss.account()
        request = accounts_pb2.DeleteAccountRequest(password=PASSWORD)

        for call in (
            set_active(boss, boss.id, False),
            set_roles(boss, boss.id, superuser=False),
            set_roles(boss, boss.id, staff=False, superuser=False),
            boss.accounts.DeleteAccount(request),
        ):
            assert refused(await failure(call)) == LAST_SUPERUSER
        assert refused(await failure(delete_user(boss, boss.id))) == WRONG_PASSWORD
        assert refused(await failure(delete_user(staff, boss.id))) == SUPERUSER_ONLY
        assert await boss.account() == before

        # Of two who turn on each other at the same time, one stays.
        await set_active(boss, idle.id, True)
        other = await people.log_in(idle.username)
        answers = await asyncio.gather(
            set_roles(boss, other.id, superuser=False),
            set_roles(other, boss.id, superuser=False),
            return_exceptions=True,
        )
        lost = [Failure(answer) for answer in answers if isinstance(answer, grpc.aio.AioRpcError)]
        assert [failed.reason in ("LAST_SUPERUSER", "SUPERUSER_ONLY", "SESSION_ENDED") for failed in lost] == [True]
        both = [await people.log_in(person.username) for person in (boss, other)]
        left = [person for person in both if (await person.account()).superuser]
        assert len(left) == 1

        # With another one beside them, they may go.
        (keeper,) = left
        successor = await join_as(people, keeper, superuser=True)
        await keeper.accounts.DeleteAccount(request)
        assert refused(await failure(set_active(successor, successor.id, False))) == LAST_SUPERUSER
        await people.channel.close()
