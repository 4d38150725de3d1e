"""People who use everything that leaves rows."""

from __future__ import annotations

import asyncio

from insta.gateway.v1 import accounts_pb2
from tests.people import People, Person
from tests.running import PASSWORD


async def use(people: People, count: int) -> list[Person]:
    """So many new people: each writes a post, and likes, comments on and follows all the others'."""
    members = list(await asyncio.gather(*(people.join() for _ in range(count))))
    posts = await asyncio.gather(*(member.post() for member in members))

    async def meet(member: Person) -> None:
        for other, post in zip(members, posts, strict=True):
            await member.like(post)
            await member.comment(post)
            if other is not member:
                await member.follow(other)

    await asyncio.gather(*(meet(member) for member in members))
    return members


async def leave(member: Person) -> None:
    """Delete somebody's account."""
    await member.accounts.DeleteAccount(accounts_pb2.DeleteAccountRequest(password=PASSWORD))
