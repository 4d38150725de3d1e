"""Likes through the public API."""

from __future__ import annotations

import asyncio

import grpc

from insta.gateway.v1 import posts_pb2
from tests.people import People, Person, failure


async def test_a_second_like_by_the_same_person_changes_nothing(ana: Person, ben: Person) -> None:
    post = await ana.post()

    first = await ben.posts.LikePost(posts_pb2.LikePostRequest(post_id=post.id))
    second = await ben.posts.LikePost(posts_pb2.LikePostRequest(post_id=post.id))

    assert (first.like_count, second.like_count) == (1, 1)
    assert (await ben.see(post)).viewer_liked
    assert not (await ana.see(post)).viewer_liked


async def test_unliking_what_one_does_not_like_changes_nothing(ana: Person, ben: Person) -> None:
    post = await ana.post()
    await ana.posts.LikePost(posts_pb2.LikePostRequest(post_id=post.id))

    answer = await ben.posts.UnlikePost(posts_pb2.UnlikePostRequest(post_id=post.id))

    assert answer.like_count == 1


async def test_eight_likes_at_once_by_one_person_count_once(ana: Person, ben: Person) -> None:
    post = await ana.post()

    await asyncio.gather(*(ben.posts.LikePost(posts_pb2.LikePostRequest(post_id=post.id)) for _ in range(8)))

    assert (await ana.see(post)).like_count == 1


async def test_a_post_that_does_not_exist_cannot_be_liked(ana: Person) -> None:
    failed = await failure(ana.posts.LikePost(posts_pb2.LikePostRequest(post_id=2**40)))

    assert (failed.code, failed.reason) == (grpc.StatusCode.NOT_FOUND, "POST_NOT_FOUND")


async def test_likers_are_listed_newest_first_page_by_page(people: People, ana: Person) -> None:
    post = await ana.post()
    likers = [await people.join() for _ in range(5)]
    for person in likers:
        await person.posts.LikePost(posts_pb2.LikePostRequest(post_id=post.id))

    listed, token = [], ""
    while True:
        page = await ana.posts.ListPostLikes(
            posts_pb2.ListPostLikesRequest(post_id=post.id, page_size=2, page_token=token)
        )
        listed += [profile.username for profile in page.profiles]
        token = page.next_page_token
        if not token:
            break

    assert listed == [person.username for person in reversed(likers)]
