"""People in one line each, kept until the services tell that they changed: they are read with every post, and change
seldom."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Set
from typing import Any

from chassis.follower import Follower
from gateway.avatars import Avatars
from insta.gateway.v1 import media_pb2, short_profile_pb2
from insta.users.v1 import users_pb2

# Some 9 MB.
_LIMIT = 50_000
# Who has not heard of changes for this long asks.
_OLDEST_NEWS_SECONDS = 10.0
# Whoever is shown an address has so long to load it.
_GOOD_FOR_SECONDS = 15


class ShortProfiles:
    """Short profiles by id.

    A change that this process makes shows at once (`drop`), and what others change when its event comes.

    Args:
        users: Stub of UserService.
        user_events, post_events: Of the users and the posts service. While that of posts is silent nobody has a new
            avatar here; while that of users is, everybody is asked for.
    """

    def __init__(self, users: Any, avatars: Avatars, user_events: Follower, post_events: Follower) -> None:
        self._users = users
        self._avatars = avatars
        self._events = user_events
        # Serialised: a third of the memory that messages take.
        self._kept: dict[int, bytes] = {}
        # Of those whose avatars have addresses that end: until when they are good, in seconds since 1970.
        self._good_until: dict[int, int] = {}
        # How often something was dropped.
        self._drops = 0
        user_events.subscribe(self._apply, self._drop_all)
        post_events.subscribe(self._apply_avatar, self._drop_all)

    async def of(self, user_ids: Iterable[int]) -> Mapping[int, short_profile_pb2.ShortProfile]:
        """Those of the people who have an account, by id."""
        wanted = set(user_ids)
        if self._good_until:
            self._drop_outdated(wanted)
        kept = self._kept if self._events.age() <= _OLDEST_NEWS_SECONDS else {}
        found = {user_id: _parsed(kept[user_id]) for user_id in wanted if user_id in kept}
        if missing := wanted - found.keys():
            found |= await self._ask(missing)
        return found

    def drop(self, user_id: int) -> None:
        """Somebody was changed, or may have been."""
        self._drops += 1
        self._kept.pop(user_id, None)
        self._good_until.pop(user_id, None)

    async def _ask(self, user_ids: Set[int]) -> Mapping[int, short_profile_pb2.ShortProfile]:
        drops = self._drops
        users_call = self._users.BatchGetUsers(users_pb2.BatchGetUsersRequest(user_ids=user_ids))
        avatars = await self._avatars.known(user_ids)
        users = (await users_call).users
        found = {user.id: _short_profile(user, (avatars or {}).get(user.id)) for user in users}
        # Else the answer may be older than the change, or without an avatar that there is.
        if drops == self._drops and avatars is not None:
            self._keep(found, avatars)
        return found

    def _keep(
        self,
        profiles: Mapping[int, short_profile_pb2.ShortProfile],
        avatars: Mapping[int, media_pb2.Media],
    ) -> None:
        if len(self._kept) + len(profiles) > _LIMIT:
            self._kept.clear()
            self._good_until.clear()
        for user_id, profile in profiles.items():
            self._kept[user_id] = profile.SerializeToString()
            avatar = avatars.get(user_id)
            if avatar is not None and avatar.HasField("url_expire_time"):
                self._good_until[user_id] = avatar.url_expire_time.seconds

    def _drop_outdated(self, user_ids: Iterable[int]) -> None:
        soon = time.time() + _GOOD_FOR_SECONDS
        for user_id in user_ids:
            if self._good_until.get(user_id, soon) < soon:
                self.drop(user_id)

    def _apply(self, event: Any) -> None:
        for changed in (event.user_updated, event.user_deleted):
            if changed.user_id:
                self.drop(changed.user_id)

    def _apply_avatar(self, event: Any) -> None:
        if event.avatar_changed.user_id:
            self.drop(event.avatar_changed.user_id)

    def _drop_all(self) -> None:
        self._drops += 1
        self._kept.clear()
        self._good_until.clear()


_parsed = short_profile_pb2.ShortProfile.FromString


def _short_profile(user: users_pb2.User, avatar: media_pb2.Media | None) -> short_profile_pb2.ShortProfile:
    return short_profile_pb2.ShortProfile(
        id=user.id,
        username=user.username,
        first_name=user.first_name,
        last_name=user.last_name,
        # The smallest variant, as WebP.
        avatar_url="" if avatar is None else avatar.variants[0].url,
    )
