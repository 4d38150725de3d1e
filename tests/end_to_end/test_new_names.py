"""Who people are is kept for a while where posts are put together: what changes shows nevertheless."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

from google.protobuf import field_mask_pb2

from insta.gateway.v1 import accounts_pb2
from tests.people import People, Person
from tests.running import RunningSuite

# Two workers are met among them in all but one of ten thousand cases; what is tested holds for one as well.
_CONNECTIONS = 14


async def rename(person: Person, first_name: str) -> None:
    account = accounts_pb2.Account(first_name=first_name)
    mask = field_mask_pb2.FieldMask(paths=["first_name"])
    await person.accounts.UpdateAccount(accounts_pb2.UpdateAccountRequest(account=account, update_mask=mask))


async def test_a_new_name_shows_at_once_where_it_was_changed_and_soon_everywhere(
    suite: RunningSuite, ana: Person, ben: Person
) -> None:
    post = await ana.post()
    async with AsyncExitStack() as opened:
        others = [People(suite.address) for _ in range(_CONNECTIONS)]
        for other in others:
            opened.push_async_callback(other.channel.close)
        readers = [Person(other.channel, ben.id, ben.username, ben.token, ben.refresh_token) for other in others]
        # All of them know the old one.
        before = {(await reader.see(post)).author.first_name for reader in readers}
        await rename(ana, "Anna")
        own = (await ana.see(post)).author.first_name
        async with asyncio.timeout(20):
            for reader in readers:
                while (await reader.see(post)).author.first_name != "Anna":
                    pass

    assert (before, own) == ({"Pat"}, "Anna")
