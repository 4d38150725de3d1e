"""Somebody's things, and people of every role who may want to do something with them."""

from __future__ import annotations

import asyncio
import itertools
import os
from dataclasses import dataclass

from insta.gateway.v1 import admin_pb2
from tests.certificates import channel_to, credentials_of
from tests.people import People, Person, WithToken
from tests.running import RunningSuite

_names = itertools.count()


@dataclass(frozen=True)
class Scenario:
    """Things, and people who are new in each scenario.

    Attributes:
        nobody: Has no token.
        owner: Wrote the post and the comment, and uploaded both images, of which the post shows one. The account that a
            request is about is theirs.
        host: Wrote another post, on which the comment stands.
        stranger: Has nothing to do with any of it.
        bystander: Somebody without a part of their own.
        free_name: A username that nobody has.
    """

    nobody: Person
    owner: Person
    host: Person
    stranger: Person
    staff: Person
    superuser: Person
    bystander: Person
    post_id: int
    comment_id: int
    media_id: int
    shown_media_id: int
    free_name: str

    def person(self, role: str) -> Person:
        """Who has the role that an attribute is named after."""
        person: Person = getattr(self, role)
        return person


class World:
    """A suite that runs apart, and the people and channels to call its parts with.

    Attributes:
        channels: To each part, by name. They carry no token.
    """

    def __init__(self, suite: RunningSuite) -> None:
        self.people = People(suite.address)
        # As a service has them that may call all of a part.
        callers = {"users": "gateway", "posts": "gateway", "social": "gateway"}
        self.channels = {
            part: channel_to(part, suite.addresses[part], credentials_of(suite.certificates(caller)))
            for part, caller in callers.items()
        } | {"gateway": self.people.channel}

    def channel(self, part: str, person: Person) -> WithToken:
        """A channel to a part. Its calls carry the person's token."""
        return WithToken(self.channels[part], person.token)

    async def scenario(self) -> Scenario:
        """A new one."""
        join = self.people.join
        owner, host, stranger, bystander, staff, superuser = await asyncio.gather(
            join(), join(), join(), join(), self._promoted("staff"), self._promoted("superuser")
        )
        media, shown = await asyncio.gather(owner.upload(), owner.upload())
        post, hosting = await asyncio.gather(owner.post(media_ids=[shown.id]), host.post())
        comment = await owner.comment(hosting)
        return Scenario(
            nobody=self.people.stranger,
            owner=owner,
            host=host,
            stranger=stranger,
            staff=staff,
            superuser=superuser,
            bystander=bystander,
            post_id=post.id,
            comment_id=comment.id,
            media_id=media.id,
            shown_media_id=shown.id,
            free_name=f"free{os.getpid()}_{next(_names)}",
        )

    async def close(self) -> None:
        """Close all channels."""
        for channel in (self.people.channel, *self.channels.values()):
            await channel.close()

    async def _promoted(self, role: str) -> Person:
        """Somebody with a role, and a token that says so."""
        boss, person = await asyncio.gather(self.people.superuser(), self.people.join())
        request = admin_pb2.SetUserRolesRequest(user_id=person.id, staff=role == "staff", superuser=role == "superuser")
        await boss.admin.SetUserRoles(request)
        return await self.people.log_in(person.username)
