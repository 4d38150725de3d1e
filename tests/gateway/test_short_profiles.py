"""Short profiles are kept, and never longer than what they say is known to be so."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from chassis import errors
from chassis.errors import LocalRpcError
from chassis.follower import Follower
from gateway import short_profiles
from gateway.avatars import Avatars
from gateway.short_profiles import ShortProfiles
from insta.posts.v1 import events_pb2 as post_events_pb2
from insta.posts.v1 import media_pb2
from insta.users.v1 import events_pb2, users_pb2

ANA, BEN, CLEO = 1, 2, 3


@dataclass
class Batch:
    """An answer of an event log."""

    events: list[Any]
    next_offset: int
    epoch: str
    head_offset: int
    newest_offset: int


@dataclass
class Users:
    """The users and the posts service: names and avatars by id, what happened to them, and what they were asked for.

    Attributes:
        avatars: None: the posts service is away.
        answering: While it is not set, answers wait after they were read.
    """

    names: dict[int, str] = field(default_factory=lambda: {ANA: "ana", BEN: "ben", CLEO: "cleo"})
    avatars: dict[int, media_pb2.Media] | None = field(default_factory=dict)
    asked: list[set[int]] = field(default_factory=list)
    events: list[events_pb2.Event] = field(default_factory=list)
    post_events: list[post_events_pb2.Event] = field(default_factory=list)
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

    async def BatchGetAvatars(
        self, request: media_pb2.BatchGetAvatarsRequest, **options: float
    ) -> media_pb2.BatchGetAvatarsResponse:
        if self.avatars is None:
            raise LocalRpcError(errors.unavailable(), "")
        return media_pb2.BatchGetAvatarsResponse(
            avatars=[self.avatars[user_id] for user_id in request.user_ids if user_id in self.avatars]
        )

    async def read(self, offset: int, limit: int) -> Batch:
        return await self._read(self.events, offset, limit)

    async def read_posts(self, offset: int, limit: int) -> Batch:
        return await self._read(self.post_events, offset, limit)

    async def _read(self, log: list[Any], offset: int, limit: int) -> Batch:
        if offset >= len(log):
            await asyncio.sleep(0.005)
        events = log[offset : offset + limit]
        return Batch(events, offset + len(events), self.epoch, len(log), len(log))


@pytest.fixture
def users() -> Users:
    made = Users()
    made.answering.set()
    return made


@pytest.fixture
async def profiles(users: Users) -> AsyncIterator[ShortProfiles]:
    followers = [Follower("users", users.read), Follower("posts", users.read_posts)]
    made = ShortProfiles(users, Avatars(users), *followers)
    tasks = [asyncio.create_task(follower.run()) for follower in followers]
    for follower in followers:
        await follower.wait_until_heard(10)
    yield made
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)


def avatar(user_id: int, url: str, good_for: float | None = None) -> media_pb2.Media:
    """An image of somebody's, whose address is good for so many seconds."""
    made = media_pb2.Media(owner_id=user_id, variants=[media_pb2.Variant(url=url)])
    if good_for is not None:
        made.url_expire_time.FromNanoseconds(time.time_ns() + int(good_for * 1e9))
    return made


async def avatar_of(profiles: ShortProfiles, user_id: int) -> str:
    return (await profiles.of([user_id]))[user_id].avatar_url


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


async def test_an_avatar_is_shown_and_kept(users: Users, profiles: ShortProfiles) -> None:
    assert users.avatars is not None
    users.avatars[ANA] = avatar(ANA, "one")

    assert await avatar_of(profiles, ANA) == "one"
    assert await avatar_of(profiles, BEN) == ""
    assert await avatar_of(profiles, ANA) == "one"
    assert users.asked == [{ANA}, {BEN}]


async def test_an_avatar_that_was_changed_elsewhere_shows_when_it_is_heard(
    users: Users, profiles: ShortProfiles
) -> None:
    await names(profiles, ANA, BEN)
    users.avatars = {ANA: avatar(ANA, "one")}
    users.post_events.append(post_events_pb2.Event(avatar_changed=post_events_pb2.AvatarChanged(user_id=ANA)))

    async with asyncio.timeout(20):
        while await avatar_of(profiles, ANA) != "one":  # noqa: ASYNC110
            await asyncio.sleep(0.005)


async def test_while_the_posts_service_is_away_people_are_shown_without_avatars_and_not_kept(
    users: Users, profiles: ShortProfiles
) -> None:
    users.avatars = None
    without = await avatar_of(profiles, ANA)
    users.avatars = {ANA: avatar(ANA, "one")}

    assert (without, await avatar_of(profiles, ANA)) == ("", "one")


async def test_an_address_that_ends_soon_is_asked_for_anew(users: Users, profiles: ShortProfiles) -> None:
    users.avatars = {ANA: avatar(ANA, "one", good_for=1), BEN: avatar(BEN, "two", good_for=1000)}
    await names(profiles, ANA, BEN)
    users.avatars = {ANA: avatar(ANA, "one anew", good_for=1000), BEN: avatar(BEN, "two anew", good_for=1000)}

    assert [await avatar_of(profiles, user_id) for user_id in (ANA, BEN)] == ["one anew", "two"]
