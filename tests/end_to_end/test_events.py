"""The event logs: each change that people make stands in that of its service, once, and what is no change does not."""

from __future__ import annotations

from typing import Any

import grpc
import pytest
from google.protobuf import message

from insta.gateway.v1 import accounts_pb2, posts_pb2, profiles_pb2
from insta.posts.v1 import events_pb2 as post_events
from insta.social.v1 import events_pb2 as social_events
from insta.users.v1 import events_pb2 as user_events
from tests import databases
from tests.deletions import delete_account, delete_post
from tests.people import Person, failure, until
from tests.running import RunningSuite

pytestmark = pytest.mark.inside

EVENTS: dict[str, Any] = {"users": user_events.Event, "posts": post_events.Event, "social": social_events.Event}
# Which field of an event names who did it, or to whom it happened.
WHO = ("user_id", "author_id", "follower_id")


def told_of(suite: RunningSuite, service: str, person: Person) -> list[message.Message]:
    """What the log of a service tells of somebody, in order."""
    found = []
    for (payload,) in databases.rows(suite, service, "SELECT payload FROM logged_event ORDER BY id"):
        event = EVENTS[service].FromString(payload)
        told = getattr(event, event.WhichOneof("payload"))
        if person.id in (getattr(told, field, 0) for field in WHO):
            found.append(told)
    return found


async def test_each_change_is_told_once_in_the_log_of_its_service(
    suite: RunningSuite, ana: Person, ben: Person
) -> None:
    # Twice each: the second time nothing changes.
    bio = accounts_pb2.UpdateAccountRequest(account=accounts_pb2.Account(bio="Hello"))
    post, kept = await ana.post(), await ana.post()
    title = posts_pb2.UpdatePostRequest(post=posts_pb2.Post(id=post.id, title="Second light"))
    comment = await ben.comment(post)
    text = posts_pb2.UpdateCommentRequest(comment_id=comment.id, text="Lovelier")
    for _ in range(2):
        await ana.accounts.UpdateAccount(bio)
        await ana.posts.UpdatePost(title)
        await ben.posts.UpdateComment(text)
        await ben.like(post)
        await ben.follow(ana)
    for _ in range(2):
        await ben.posts.UnlikePost(posts_pb2.UnlikePostRequest(post_id=post.id))
        await ben.profiles.UnfollowUser(profiles_pb2.UnfollowUserRequest(user_id=ana.id))
    refused = await failure(delete_post(ben, post))
    await ben.posts.DeleteComment(posts_pb2.DeleteCommentRequest(comment_id=comment.id))
    await failure(ben.posts.DeleteComment(posts_pb2.DeleteCommentRequest(comment_id=comment.id)))
    await delete_post(ana, post)
    await failure(delete_post(ana, post))
    before = told_of(suite, "posts", ana)
    await delete_account(ana)

    assert refused.code is grpc.StatusCode.PERMISSION_DENIED
    assert told_of(suite, "users", ana) == [
        user_events.UserCreated(user_id=ana.id),
        user_events.UserUpdated(user_id=ana.id),
        user_events.SessionsEnded(user_id=ana.id, session_ids=[ana.session_id]),
        user_events.UserDeleted(user_id=ana.id),
    ]
    of_comment = {"comment_id": comment.id, "post_id": post.id, "author_id": ben.id}
    of_follow = {"follower_id": ben.id, "followee_id": ana.id}
    assert told_of(suite, "social", ben) == [
        social_events.CommentCreated(**of_comment),
        social_events.CommentUpdated(**of_comment),
        social_events.PostLiked(post_id=post.id, user_id=ben.id),
        social_events.UserFollowed(**of_follow),
        social_events.PostUnliked(post_id=post.id, user_id=ben.id),
        social_events.UserUnfollowed(**of_follow),
        social_events.CommentDeleted(**of_comment),
    ]
    of_post, of_kept = ({"post_id": one.id, "author_id": ana.id} for one in (post, kept))
    assert before == [
        post_events.PostCreated(**of_post),
        post_events.PostCreated(**of_kept),
        post_events.PostUpdated(**of_post),
        post_events.PostDeleted(**of_post),
    ]

    async def told() -> list[message.Message]:
        return told_of(suite, "posts", ana)

    # It goes with its author.
    await until(told, [*before, post_events.PostDeleted(**of_kept)])
