"""Calls that are over change nothing any more."""

from __future__ import annotations

import grpc
import pytest

from insta.gateway.v1 import posts_pb2, profiles_pb2
from tests import databases
from tests.people import Person, failure
from tests.running import RunningSuite

pytestmark = pytest.mark.inside


async def test_a_call_that_is_over_before_its_change_begins_changes_nothing(
    suite: RunningSuite, ana: Person, ben: Person
) -> None:
    post, other = await ben.post(), await ben.post()
    with databases.writers_held(databases.path_of(suite, "social")):
        # Meanwhile nothing is written there.
        cancelled = ana.posts.CreateComment(posts_pb2.CreateCommentRequest(post_id=post.id, text="cancelled"))
        like = posts_pb2.LikePostRequest(post_id=post.id, request_id="late")
        late = await failure(ana.posts.LikePost(like, timeout=0.5))
        cancelled.cancel()
        kept = ana.profiles.FollowUser(profiles_pb2.FollowUserRequest(user_id=ben.id))
        # A deadline travels as what is left of it, so each hop's ends a little after the caller's. When another call's
        # is over, the first's is over everywhere; the other's own end is not waited for, and nothing rests on it.
        await failure(ana.posts.LikePost(posts_pb2.LikePostRequest(post_id=other.id), timeout=0.5))
    await kept
    seen = await ana.see(post)

    assert late.code is grpc.StatusCode.DEADLINE_EXCEEDED
    assert (seen.like_count, seen.viewer_liked, seen.comment_count) == (0, False, 0)
    assert (await ana.posts.LikePost(like)).like_count == 1
