"""Deleting an account or a post: everything follows, everywhere, and nothing that comes late stays."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from typing import Any

import grpc
import pytest

from insta.gateway.v1 import accounts_pb2, admin_pb2, posts_pb2, profiles_pb2
from tests import databases
from tests.deletions import (
    CLIENTS,
    Crowd,
    counters_are_right,
    delete_account,
    delete_post,
    done,
    erased,
    erasure_of,
    nothing_left,
)
from tests.people import People, Person, failure
from tests.running import PASSWORD, RunningSuite

_ids = itertools.count()


@pytest.mark.inside
async def test_a_deleted_account_takes_everything_with_it(
    suite: RunningSuite, people: People, boss: Person, ana: Person, ben: Person
) -> None:
    cid = await people.join()
    hers = [await ana.post() for _ in range(3)]
    his, other = await ben.post(), await cid.post()
    for post in [*hers, his, other]:
        for person in (ana, ben, cid):
            await person.like(post)
            await person.comment(post)
    for one, another in itertools.permutations((ana, ben, cid), 2):
        await one.follow(another)

    await delete_account(ana)
    await erased(boss, ana.id)
    await nothing_left(suite, [ana.id], [post.id for post in hers])

    for post in (his, other):
        seen = await cid.see(post)
        assert (seen.like_count, seen.comment_count) == (2, 2)
        likers = await cid.posts.ListPostLikes(posts_pb2.ListPostLikesRequest(post_id=post.id))
        assert {profile.id for profile in likers.profiles} == {ben.id, cid.id}
        comments = await cid.posts.ListComments(posts_pb2.ListCommentsRequest(post_id=post.id))
        assert {comment.author.id for comment in comments.comments} == {ben.id, cid.id}
    for person in (ben, cid):
        profile = await cid.profile(person)
        assert (profile.follower_count, profile.following_count, profile.post_count) == (1, 1, 1)
    assert (await failure(ben.profile(ana))).reason == "USER_NOT_FOUND"
    for post in hers:
        assert (await failure(ben.see(post))).reason == "POST_NOT_FOUND"
    await counters_are_right(suite)


@pytest.mark.inside
async def test_a_deleted_post_takes_its_likes_and_comments_with_it(
    suite: RunningSuite, people: People, ana: Person, ben: Person
) -> None:
    post, kept = await ana.post(), await ana.post()
    for person in (ana, ben):
        for one in (post, kept):
            await person.like(one)
            await person.comment(one)

    await delete_post(ana, post)
    await nothing_left(suite, [], [post.id])

    seen = await ben.see(kept)
    assert (seen.like_count, seen.comment_count) == (2, 2)
    assert (await ben.profile(ana)).post_count == 1
    comments = await ben.posts.ListComments(posts_pb2.ListCommentsRequest(post_id=kept.id))
    assert len(comments.comments) == 2
    await counters_are_right(suite)


async def test_staff_see_what_is_left_of_an_account_until_nothing_is(
    people: People, boss: Person, ana: Person, ben: Person
) -> None:
    post = await ana.post()
    await ana.like(post)
    await ana.comment(post)
    await ana.follow(ben)
    await ben.follow(ana)

    before = await erasure_of(boss, ana.id)
    await delete_account(ana)
    await erased(boss, ana.id)
    after = await erasure_of(boss, ana.id)

    assert not before.complete
    assert not any(service.erased for service in before.services)
    assert {service.service: dict(service.left) for service in before.services} == {
        "users": {"accounts": 1, "sessions": 1},
        "posts": {"posts": 1, "media": 0, "blobs": 0},
        "social": {"likes": 1, "comments": 1, "follows": 2, "deleted_posts": 0},
    }
    assert all(service.erased and not any(service.left.values()) for service in after.services)


@pytest.mark.inside
async def test_an_erasure_is_complete_when_nothing_is_left_of_the_posts_either(
    suite: RunningSuite, boss: Person, ana: Person, ben: Person
) -> None:
    posts = [await ana.post() for _ in range(100)]
    await asyncio.gather(*(ben.like(post) for post in posts))

    await delete_account(ana)
    await erased(boss, ana.id)

    assert databases.left_of_posts(suite, [post.id for post in posts]) == {}


async def test_an_erasure_is_for_staff_to_see(ana: Person, ben: Person) -> None:
    failed = await failure(erasure_of(ben, ana.id))

    assert (failed.code, failed.reason) == (grpc.StatusCode.PERMISSION_DENIED, "STAFF_ONLY")


async def test_an_account_that_never_was_is_not_erased(boss: Person) -> None:
    assert not (await erasure_of(boss, 2**40)).complete


@pytest.mark.inside
async def test_no_answer_is_kept_for_or_about_who_was_deleted(
    suite: RunningSuite, people: People, boss: Person
) -> None:
    name = f"kept{next(_ids)}_{id(people)}"[:30]
    registration = accounts_pb2.RegisterRequest(
        username=name, email=f"{name}@example.com", password=PASSWORD, first_name="Pat", request_id=f"join-{name}"
    )
    await people.stranger.accounts.Register(registration)
    person = await people.log_in(name)
    post = await person.posts.CreatePost(posts_pb2.CreatePostRequest(title="Mine", request_id="post"))
    await person.posts.LikePost(posts_pb2.LikePostRequest(post_id=post.post.id, request_id="like"))
    await person.accounts.UpdateAccount(
        accounts_pb2.UpdateAccountRequest(account=accounts_pb2.Account(bio="Hello"), request_id="update")
    )

    for active in (False, True):
        request = admin_pb2.SetUserActiveRequest(user_id=person.id, active=active, request_id=f"{active}-{name}")
        assert (await boss.admin.SetUserActive(request)).account.email == registration.email
    person = await people.log_in(name)

    await person.accounts.DeleteAccount(accounts_pb2.DeleteAccountRequest(password=PASSWORD, request_id="delete"))
    await erased(boss, person.id)

    for service in ("users", "posts", "social"):
        kept = databases.rows(suite, service, "SELECT response FROM reply")
        assert not [response for (response,) in kept if name.encode() in response], service
    await nothing_left(suite, [person.id], [post.post.id])


async def test_who_has_the_name_of_somebody_deleted_is_somebody_else(
    people: People, boss: Person, ana: Person, ben: Person
) -> None:
    post = await ben.post()
    await ana.like(post)
    await ana.follow(ben)
    await delete_account(ana)

    namesake = await people.join(username=ana.username)
    await erased(boss, ana.id)

    assert namesake.id > ana.id
    seen = await ben.profile(namesake)
    assert (seen.post_count, seen.following_count) == (0, 0)
    assert not (await namesake.see(post)).viewer_liked


@pytest.mark.inside
async def test_what_races_the_deletion_of_an_account_leaves_nothing(
    suite: RunningSuite, people: People, boss: Person, ben: Person
) -> None:
    others = [await people.join() for _ in range(CLIENTS)]
    post_ids = []
    for _ in range(3):
        gone = await people.join()
        target, his = await gone.post(), await ben.post()
        post_ids.append(target.id)

        async def write(gone: Person = gone) -> None:
            post_ids.append((await gone.posts.CreatePost(named(posts_pb2.CreatePostRequest, title="Late"))).post.id)

        by_the_deleted = [
            write,
            lambda gone=gone, post=his: gone.posts.LikePost(named(posts_pb2.LikePostRequest, post_id=post.id)),
            lambda gone=gone, post=his: gone.posts.UnlikePost(named(posts_pb2.UnlikePostRequest, post_id=post.id)),
            lambda gone=gone, post=his: gone.posts.CreateComment(
                named(posts_pb2.CreateCommentRequest, post_id=post.id, text="Late")
            ),
            lambda gone=gone: gone.profiles.FollowUser(named(profiles_pb2.FollowUserRequest, user_id=ben.id)),
            lambda gone=gone: gone.profiles.UnfollowUser(named(profiles_pb2.UnfollowUserRequest, user_id=ben.id)),
            lambda gone=gone: gone.accounts.UpdateAccount(
                named(accounts_pb2.UpdateAccountRequest, account=accounts_pb2.Account(bio=f"Late {next(_ids)}"))
            ),
        ]
        crowd = Crowd()
        crowd.start(by_the_deleted)
        for other in others:
            to_the_deleted = [
                lambda other=other, post=target: other.like(post),
                lambda other=other, gone=gone: other.follow(gone),
                lambda other=other, post=target: other.comment(post),
                lambda other=other, post=target: other.posts.UnlikePost(posts_pb2.UnlikePostRequest(post_id=post.id)),
            ]
            crowd.start(to_the_deleted, clients=1)
        await done(crowd, 60)
        await delete_account(gone)
        await erased(boss, gone.id)
        await crowd.stop()

        await nothing_left(suite, [gone.id], post_ids)
    await counters_are_right(suite)


@pytest.mark.inside
async def test_what_races_the_deletion_of_a_post_leaves_nothing(
    suite: RunningSuite, people: People, ana: Person, ben: Person
) -> None:
    others = [await people.join() for _ in range(CLIENTS)]
    for _ in range(5):
        post = await ana.post()
        crowd = Crowd()
        for other in others:
            deeds = [
                lambda other=other, post=post: other.like(post),
                lambda other=other, post=post: other.comment(post),
                lambda other=other, post=post: other.posts.UnlikePost(posts_pb2.UnlikePostRequest(post_id=post.id)),
            ]
            crowd.start(deeds, clients=1)
        await done(crowd, 40)
        await delete_post(ana, post)
        await nothing_left(suite, [], [post.id])
        await crowd.stop()

        await nothing_left(suite, [], [post.id])
    await counters_are_right(suite)


@pytest.mark.inside
async def test_a_login_that_races_the_deletion_of_its_account_leaves_no_session(
    suite: RunningSuite, people: People, boss: Person
) -> None:
    for _ in range(3):
        gone = await people.join()
        crowd = Crowd()
        crowd.start([lambda gone=gone: people.log_in(gone.username)], clients=4)
        await done(crowd, 4)
        # Not by themselves: so many logins may end the session of this one.
        await boss.admin.DeleteUser(admin_pb2.DeleteUserRequest(user_id=gone.id))
        await erased(boss, gone.id)
        await crowd.stop()

        assert databases.left_of_users(suite, [gone.id]) == {}


def named(kind: Callable[..., Any], **fields: Any) -> Any:
    """A request with an id of its own."""
    return kind(request_id=f"deletion-{next(_ids)}", **fields)
