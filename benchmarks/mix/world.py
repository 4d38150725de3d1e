"""What both sides hold before the mix begins: the same rows under the same ids, the same for the same seed."""

from __future__ import annotations

from random import Random

from benchmarks.mix import graph
from benchmarks.mix.plan import PAGE_SIZE

LIKES, COMMENTS = 10, 3


class World:
    """The rows of a world, ids as the databases assign them: from 1 on.

    Everybody has written a page of posts at least, so that no timeline is short.

    Attributes:
        users, posts: How many there are.
        friends: Whom each follows, and is followed by.
        authors: Of the posts, in their order.
        follows: Follower and followee.
        likes: Post and user.
        comments: Post and author.
        discussion: None beyond these.
    """

    def __init__(self, seed: int = 1, most_posts: int = 30) -> None:
        self.friends: dict[int, set[int]] = {person: set() for person in range(1, graph.PEOPLE + 1)}
        for one, other in graph.friendships(seed):
            self.friends[one].add(other)
            self.friends[other].add(one)
        self.users = len(self.friends)
        everybody = range(1, self.users + 1)
        rng = Random(f"{seed} posts")
        self.authors = [user for user in everybody for _ in range(rng.randint(PAGE_SIZE, most_posts))]
        rng.shuffle(self.authors)
        self.posts = len(self.authors)
        every_post = range(1, self.posts + 1)
        self.follows = [(user, friend) for user in everybody for friend in sorted(self.friends[user])]
        self.likes = [(post, user) for post in every_post for user in rng.sample(everybody, LIKES)]
        self.comments = [(post, user) for post in every_post for user in rng.choices(everybody, k=COMMENTS)]
        self.discussion: list[tuple[int, int]] = []
