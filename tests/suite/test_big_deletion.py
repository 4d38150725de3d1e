"""The deletion of an account with very much to delete holds nobody up."""

from __future__ import annotations

from tests.big_account import delete_big_account
from tests.people import People
from tests.running import RunningSuite


async def test_others_write_on_while_an_account_with_very_much_is_deleted(together: RunningSuite) -> None:
    people = People(together.address)
    deleted = await delete_big_account(together, people, likes=10_000, posts=1_000, undisturbed=20)
    await people.channel.close()

    assert len(deleted.meanwhile) > 20, str(deleted)
