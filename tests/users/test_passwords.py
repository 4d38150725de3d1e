"""Which passwords are taken, and how they are kept."""

from __future__ import annotations

import asyncio
from contextlib import closing
from pathlib import Path

import grpc
import pytest

from insta.gateway.v1 import accounts_pb2
from tests import databases
from tests.people import People, failure
from tests.running import PASSWORD, RunningSuite, running


@pytest.mark.parametrize("password", ["password1", "12345678", "iloveyou1", "PassWord1"])
async def test_the_most_common_passwords_are_refused(together: RunningSuite, password: str) -> None:
    people = People(together.address)

    joining = await failure(people.join(password=password))
    pat = await people.join()
    change = accounts_pb2.ChangePasswordRequest(current_password=PASSWORD, new_password=password)
    changing = await failure(pat.accounts.ChangePassword(change))

    for refused in (joining, changing):
        assert (refused.code, refused.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "COMMON_PASSWORD")
    assert (await people.log_in(pat.username)).id == pat.id
    await people.channel.close()


async def test_a_hash_that_costs_less_than_new_ones_is_replaced_at_login(tmp_path: Path) -> None:
    data = tmp_path / "var"
    with running("together", data, INSTA_BCRYPT_COST="4") as suite:
        people = People(suite.address)
        pat = await people.join()
        await people.channel.close()
    assert _cost(data, pat.id) == 4

    with running("together", data, INSTA_BCRYPT_COST="5") as suite:
        people = People(suite.address)
        await failure(people.log_in(pat.username, "a wrong one"))
        assert _cost(data, pat.id) == 4
        await people.log_in(pat.username)
        assert _cost(data, pat.id) == 5
        await people.log_in(pat.username)
        await people.channel.close()


async def test_a_storm_of_logins_is_told_to_come_back_while_other_calls_go_on(tmp_path: Path) -> None:
    # What waits for a thread is to be answered in time also where other processes leave hashing little of the machine.
    with running("together", tmp_path / "var", INSTA_BCRYPT_COST="9") as suite:
        people = People(suite.address)
        pat = await people.join()
        post = await pat.post()
        wrong = accounts_pb2.LoginRequest(login=pat.username, password="wrong")

        storm = [asyncio.ensure_future(failure(people.stranger.accounts.Login(wrong))) for _ in range(100)]
        answering = (await answer for answer in asyncio.as_completed(storm))
        refused = await anext(answer async for answer in answering if answer.reason == "OVERLOADED")
        seen = await pat.see(post)
        still_under_way = sum(not login.done() for login in storm)
        answers = await asyncio.gather(*storm)
        await people.channel.close()

    assert (refused.code, refused.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "OVERLOADED")
    assert refused.retry_after
    assert seen.id == post.id
    assert still_under_way, "the storm was over before the other call was answered"
    assert {answer.reason for answer in answers} == {"OVERLOADED", "WRONG_CREDENTIALS"}


def _cost(data: Path, user_id: int) -> int:
    with closing(databases.Connection(data / "users.db")) as database:
        ((stored,),) = database.execute('SELECT password_hash FROM "user" WHERE id = ?', (user_id,))
    return int(bytes(stored).split(b"$")[2])
