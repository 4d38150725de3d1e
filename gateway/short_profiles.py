"""People in one line each, kept until the users service tells that they changed: they are read with every post, and
change seldom."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set
from typing import Any

from chassis.follower import Follower
from insta.gateway.v1 import short_profile_pb2
from insta.users.v1 import users_pb2

# Some 9 MB.
_LIMIT = 50_000
# Who has not heard of changes for this long asks.
_OLDEST_NEWS_SECONDS = 10.0


class ShortProfiles:
    """Short profiles by id.

    A change that this process makes shows at once (`drop`), and what others change when its event comes.

    Args:
        users: Stub of UserService.
        events: Of the users service.
    """

    def __init__(self, users: Any, events: Follower) -> None:
        self._users = users
        self._events = events
        # Serialised: a third of the memory that messages take.
        self._kept: dict[int, bytes] = {}
        # How often something was dropped.
        self._drops = 0
        events.subscribe(self._apply, self._drop_all)

    async def of(self, user_ids: Iterable[int]) -> Mapping[int, short_profile_pb2.ShortProfile]:
        """Those of the people who have an account, by id."""
        wanted = set(user_ids)
        kept = self._kept if self._events.age() <= _OLDEST_NEWS_SECONDS else {}
        found = {user_id: _parsed(kept[user_id]) for user_id in wanted if user_id in kept}
        if missing := wanted - found.keys():
            found |= await self._ask(missing)
        return found

    def drop(self, user_id: int) -> None:
        """Somebody was changed, or may have been."""
        self._drops += 1
        self._kept.pop(user_id, None)

    async def _ask(self, user_ids: Set[int]) -> Mapping[int, short_profile_pb2.ShortProfile]:
        drops = self._drops
        response = await self._users.BatchGetUsers(users_pb2.BatchGetUsersRequest(user_ids=user_ids))
        found = {user.id: _short_profile(user) for user in response.users}
        # Else the answer may be older than the change.
        if drops == self._drops:
            if len(self._kept) + len(found) > _LIMIT:
                self._kept.clear()
            for user_id, profile in found.items():
                self._kept[user_id] = profile.SerializeToString()
        return found

    def _apply(self, event: Any) -> None:
        for changed in (event.user_updated, event.user_deleted):
            if changed.user_id:
                self.drop(changed.user_id)

    def _drop_all(self) -> None:
        self._drops += 1
        self._kept.clear()


_parsed = short_profile_pb2.ShortProfile.FromString


def _short_profile(user: users_pb2.User) -> short_profile_pb2.ShortProfile:
    return short_profile_pb2.ShortProfile(
        id=user.id, username=user.username, first_name=user.first_name, last_name=user.last_name
    )
