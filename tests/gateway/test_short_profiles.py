"""Short profiles are kept, and never longer than what they say is known to be so."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

import pytest

from chassis.follower import Follower
from gateway import short_profiles
from gateway.short_profiles import ShortProfiles
from insta.users.v1 import events_pb2, users_pb2

ANA, BEN, CLEO = 1, 2, 3


@dataclass
class Batch:
    """An answer of the event log."""

    events: list[events_pb2.Event]
    next_offset: int
    epoch: str


@dataclass
class Users:
    """The users service: names by id, what happened to them, and what it was asked for.

    Attributes:
        answering: While it is not set, answers wait after they were read.
    """

    names: dict[int, str] = field(default_factory=lambda: {ANA: "ana", BEN: "ben", CLEO: "cleo"})
    asked: list[set[int]] = field(default_factory=list)
    events: list[events_pb2.Event] = field(default_factory=list)
    epoch: str = "first"
    answering: asyncio.Event = field(default_factory=asyncio.Event)
    was_asked: asyncio.Event = field(default_factory=asyncio.Event)

    async def BatchGetUsers(self, request: users_pb2.BatchGetUsersRequest) -> users_pb2.BatchGetUsersResponse:
        self.asked.append(set(request.user_ids))
        self.was_asked.set()
        users = [
            users_pb2.User(id=user_id, username=self.names[user_id])
            for user_id in request.user_ids
            if user_id in self.names
        ]
        await self.answering.wait()
        return users_pb2.BatchGetUsersResponse(users=users)

    async def read(self, offset: int, limit: int) -> Batch:
        if offset >= len(self.events):
            await asyncio.sleep(0.005)
        events = self.events[offset : offset + limit]
        return Batch(events, offset + len(events), self.epoch)


@pytest.fixture
def users() -> Users:
    made = Users()
    made.answering.set()
    return made


@pytest.fixture
async def profiles(users: Users) -> AsyncIterator[ShortProfiles]:
    events = Follower("users", users.read)
    made = ShortProfiles(users, events)
    task = asyncio.create_task(events.run())
    await events.wait_until_heard(10)
    yield made
    task.cancel()
    await asyncio.wait([task])


async def names(profiles: ShortProfiles, *user_ids: int) -> dict[int, str]:
    """What is told of people."""
    return {user_id: profile.username for user_id, profile in (await profiles.of(user_ids)).items()}


async def until(profiles: ShortProfiles, told: Callable[[dict[int, str]], bool]) -> None:
    """Wait until something else is told of Ana and Ben."""
    async with asyncio.timeout(20):
        while True:
            if told(await names(profiles, ANA, BEN)):
                return
            await asyncio.sleep(0.005)


async def test_who_was_asked_for_before_is_not_asked_for_again(users: Users, profiles: ShortProfiles) -> None:
    first = await names(profiles, ANA, ANA, BEN)
    second = await names(profiles, BEN, CLEO, 77)

    assert (first, second) == ({ANA: "ana", BEN: "ben"}, {BEN: "ben", CLEO: "cleo"})
    assert users.asked == [{ANA, BEN}, {CLEO, 77}]


async def test_who_is_not_there_is_asked_for_each_time(users: Users, profiles: ShortProfiles) -> None:
    assert await names(profiles, 77) == {}
    users.names[77] = "dora"

    assert await names(profiles, 77) == {77: "dora"}


async def test_what_others_change_shows_when_it_is_heard(users: Users, profiles: ShortProfiles) -> None:
    await names(profiles, ANA, BEN)
    users.names = {ANA: "anna"}
    users.events.append(events_pb2.Event(user_updated=events_pb2.UserUpdated(user_id=ANA)))
    users.events.append(events_pb2.Event(user_deleted=events_pb2.UserDeleted(user_id=BEN)))

    await until(profiles, lambda told: told == {ANA: "anna"})


async def test_what_was_changed_here_shows_at_once(users: Users, profiles: ShortProfiles) -> None:
    await names(profiles, ANA)
    users.names[ANA] = "anna"
    profiles.drop(ANA)

    assert await names(profiles, ANA) == {ANA: "anna"}


async def test_an_answer_from_before_a_change_is_not_kept(users: Users, profiles: ShortProfiles) -> None:
    users.answering.clear()
    under_way = asyncio.create_task(names(profiles, ANA))
    await users.was_asked.wait()
    users.names[ANA] = "anna"
    profiles.drop(ANA)
    users.answering.set()
    await under_way

    assert await names(profiles, ANA) == {ANA: "anna"}


async def test_nothing_is_kept_when_the_log_was_replaced(users: Users, profiles: ShortProfiles) -> None:
    users.events.append(events_pb2.Event(user_created=events_pb2.UserCreated(user_id=CLEO)))
    await names(profiles, ANA, BEN)
    # The events of what follows are lost, as in a copy that was made before.
    users.names = {ANA: "anna", BEN: "ben"}
    users.epoch = "second"

    await until(profiles, lambda told: told == {ANA: "anna", BEN: "ben"})


async def test_without_news_everybody_is_asked_for(
    users: Users, profiles: ShortProfiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    await names(profiles, ANA)
    monkeypatch.setattr(short_profiles, "_OLDEST_NEWS_SECONDS", 0.0)
    users.names[ANA] = "anna"

    assert await names(profiles, ANA) == {ANA: "anna"}


async def test_no_more_are_kept_than_fit(
    users: Users, profiles: ShortProfiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(short_profiles, "_LIMIT", 2)
    await names(profiles, ANA, BEN)
    await names(profiles, CLEO)
    await names(profiles, CLEO)
    await names(profiles, ANA)

    assert users.asked == [{ANA, BEN}, {CLEO}, {ANA}]
