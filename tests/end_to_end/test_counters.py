"""Counters are exact, after whatever people do at the same time."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from contextlib import closing

import grpc
import pytest

from insta.gateway.v1 import posts_pb2, profiles_pb2
from tests import databases
from tests.end_to_end.lists import everything
from tests.people import People, Person
from tests.running import RunningSuite

CLIENTS = 8
OPERATIONS_EACH = 50
# What counts, in which database, and the rows that it counts.
COUNTERS = [
    ("posts", "SELECT author_id, post_count FROM author_counter", "SELECT author_id, COUNT(*) FROM post GROUP BY 1"),
    ("social", "SELECT post_id, like_count FROM post_counter", 'SELECT post_id, COUNT(*) FROM "like" GROUP BY 1'),
    (
        "social",
        "SELECT post_id, comment_count FROM post_counter",
        "SELECT post_id, COUNT(*) FROM comment GROUP BY 1",
    ),
    (
        "social",
        "SELECT user_id, follower_count FROM user_counter",
        "SELECT followee_id, COUNT(*) FROM follow GROUP BY 1",
    ),
    (
        "social",
        "SELECT user_id, followee_count FROM user_counter",
        "SELECT follower_id, COUNT(*) FROM follow GROUP BY 1",
    ),
]


class Crowd:
    """People who do something at random, each a sequence of their own."""

    def __init__(self, people: list[Person], posts: list[posts_pb2.Post], seed: int) -> None:
        self.people = people
        self.posts = posts
        self.comments: list[posts_pb2.Comment] = []
        self._random = random.Random(seed)

    async def act(self, person: Person) -> None:
        """Do a number of things, one after another, on what others change meanwhile."""
        deeds: list[Callable[[Person], Awaitable[None]]] = [
            *[self._like, self._unlike, self._follow, self._unfollow] * 3,
            *[self._comment, self._delete_comment] * 3,
            self._post,
            self._delete_post,
        ]
        for _ in range(OPERATIONS_EACH):
            try:
                await self._random.choice(deeds)(person)
            except grpc.aio.AioRpcError as error:
                # Somebody was faster: the post or the comment is gone.
                if error.code() is not grpc.StatusCode.NOT_FOUND:
                    raise

    async def _like(self, person: Person) -> None:
        await person.like(self._random.choice(self.posts))

    async def _unlike(self, person: Person) -> None:
        await person.posts.UnlikePost(posts_pb2.UnlikePostRequest(post_id=self._random.choice(self.posts).id))

    async def _follow(self, person: Person) -> None:
        await person.follow(self._random.choice([other for other in self.people if other is not person]))

    async def _unfollow(self, person: Person) -> None:
        other = self._random.choice(self.people)
        await person.profiles.UnfollowUser(profiles_pb2.UnfollowUserRequest(user_id=other.id))

    async def _comment(self, person: Person) -> None:
        self.comments.append(await person.comment(self._random.choice(self.posts)))

    async def _delete_comment(self, person: Person) -> None:
        own = [comment for comment in self.comments if comment.author.id == person.id]
        if own:
            comment = self._random.choice(own)
            await person.posts.DeleteComment(posts_pb2.DeleteCommentRequest(comment_id=comment.id))

    async def _post(self, person: Person) -> None:
        self.posts.append(await person.post())

    async def _delete_post(self, person: Person) -> None:
        # The first ones stay, so that there is always something to like.
        own = [post for post in self.posts[CLIENTS:] if post.author.id == person.id]
        if own:
            await person.posts.DeletePost(posts_pb2.DeletePostRequest(post_id=self._random.choice(own).id))


async def test_counters_equal_what_the_lists_show_after_all_changed_them_at_once(people: People) -> None:
    crowd = await _crowd(people, seed=1)

    await asyncio.gather(*(crowd.act(person) for person in crowd.people))

    reader = await people.join()
    alive = 0
    for person in crowd.people:
        seen = await reader.profile(person)
        posts = await everything(
            reader.profiles.ListProfilePosts, profiles_pb2.ListProfilePostsRequest(user_id=person.id)
        )
        followers = await everything(
            reader.profiles.ListFollowers, profiles_pb2.ListFollowersRequest(user_id=person.id)
        )
        following = await everything(
            reader.profiles.ListFollowing, profiles_pb2.ListFollowingRequest(user_id=person.id)
        )
        counted = seen.post_count, seen.follower_count, seen.following_count
        assert counted == (len(posts), len(followers), len(following))
        for other in crowd.people:
            assert (await other.profile(person)).viewer_follows == (other.id in {one.id for one in followers})
        for post in posts:
            likers = await everything(reader.posts.ListPostLikes, posts_pb2.ListPostLikesRequest(post_id=post.id))
            comments = await everything(reader.posts.ListComments, posts_pb2.ListCommentsRequest(post_id=post.id))
            assert (post.like_count, post.comment_count) == (len(likers), len(comments))
            assert len({liker.id for liker in likers}) == len(likers)
            for other in crowd.people:
                assert (await other.see(post)).viewer_liked == (other.id in {liker.id for liker in likers})
        alive += len(posts)
    assert alive >= CLIENTS


@pytest.mark.inside
async def test_counters_equal_the_rows_that_are_stored(suite: RunningSuite, people: People) -> None:
    crowd = await _crowd(people, seed=2)

    await asyncio.gather(*(crowd.act(person) for person in crowd.people))

    for service, counters, rows in COUNTERS:
        with closing(databases.Connection(databases.path_of(suite, service))) as opened, opened as stored:
            # In one transaction, so that both see the same moment.
            counted = {key: count for key, count in stored.execute(counters) if count}
            assert counted == dict(stored.execute(rows)), counters
            assert counted


async def _crowd(people: People, seed: int) -> Crowd:
    members = [await people.join() for _ in range(CLIENTS)]
    return Crowd(members, [await member.post() for member in members], seed)
