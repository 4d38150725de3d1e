"""Follows: at most one from one person to another, counted for both in the transaction that adds or removes them."""

from __future__ import annotations

from typing import NamedTuple

from chassis import clock, errors
from chassis.errors import Reason
from chassis.query import compiled, gathered, numbers, param
from chassis.store import Database
from services.social import counters, erasure, social_events
from services.social.models import Follow

LIMIT = 10_000


class Followed(NamedTuple):
    """The other person of a follow; lists are ordered by `id`."""

    id: int
    user_id: int


_insert = compiled(
    Follow.insert(follower_id=param("follower_id"), followee_id=param("followee_id"), create_time=param("now"))
    .on_conflict(action="nothing", conflict_target=[Follow.follower_id, Follow.followee_id])
    .returning(Follow.id)
)
_delete = compiled(
    Follow.delete().where(Follow.follower_id == param("follower_id"), Follow.followee_id == param("followee_id"))
)
_followers = compiled(
    Follow.select(Follow.id, Follow.follower_id)
    .where(Follow.followee_id == param("user_id"), Follow.id < param("below"))
    .order_by(Follow.id.desc())
    .limit(param("limit")),
    row=Followed,
)
_followees = compiled(
    Follow.select(Follow.id, Follow.followee_id)
    .where(Follow.follower_id == param("user_id"), Follow.id < param("below"))
    .order_by(Follow.id.desc())
    .limit(param("limit")),
    row=Followed,
)
_followee_ids = compiled(Follow.select(gathered(Follow.followee_id)).where(Follow.follower_id == param("user_id")))
_exists = compiled(
    Follow.select(Follow.id).where(
        Follow.follower_id == param("follower_id"), Follow.followee_id == param("followee_id")
    )
)


def add(db: Database, follower_id: int, followee_id: int) -> int:
    """Follow somebody; a second follow changes nothing. Returns how many people follow them.

    Raises:
        FailedPrecondition: the follower follows `LIMIT` people already.
        NotFound: the followee was deleted, also if that happened a moment ago.
        Unauthenticated: the follower was.
    """
    erasure.refuse_gone_caller(db, follower_id)
    erasure.refuse_gone_followee(db, followee_id)
    if not _insert.one(db, follower_id=follower_id, followee_id=followee_id, now=clock.now()):
        return counters.of_user(db, followee_id).follower_count
    if counters.change_user(db, follower_id, followees=1).followee_count > LIMIT:
        text = f"{LIMIT} accounts are followed already, which is all that one person can; unfollow one first"
        raise errors.FailedPrecondition(Reason.REASON_FOLLOW_LIMIT, text)
    social_events.user_followed(db, follower_id, followee_id)
    return counters.change_user(db, followee_id, followers=1).follower_count


def remove(db: Database, follower_id: int, followee_id: int) -> int:
    """Follow somebody no longer, if one did. Returns how many people follow them."""
    if not _delete.run(db, follower_id=follower_id, followee_id=followee_id):
        return counters.of_user(db, followee_id).follower_count
    social_events.user_unfollowed(db, follower_id, followee_id)
    counters.change_user(db, follower_id, followees=-1)
    return counters.change_user(db, followee_id, followers=-1).follower_count


def followers(db: Database, user_id: int, below: int, limit: int) -> list[Followed]:
    """Who follows a person, the newest follow first, from below the follow with the id `below`."""
    return _followers.all(db, user_id=user_id, below=below, limit=limit)


def followees(db: Database, user_id: int, below: int, limit: int) -> list[Followed]:
    """Whom a person follows, the newest follow first, from below the follow with the id `below`."""
    return _followees.all(db, user_id=user_id, below=below, limit=limit)


def followee_ids(db: Database, user_id: int) -> list[int]:
    """All whom a person follows, in growing order: `LIMIT` at most."""
    found = _followee_ids.one(db, user_id=user_id)
    assert found is not None
    return sorted(numbers(found[0]))


def exists(db: Database, follower_id: int, followee_id: int) -> bool:
    """Whether somebody follows somebody."""
    return _exists.one(db, follower_id=follower_id, followee_id=followee_id) is not None
