"""A network of people who never lived, the same for the same seed and sizes: its rows, not their stores."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any, NamedTuple

from suite import demo_words

_YEAR = 365 * 86_400_000_000
_PICTURES_PER_POST = 3
# After so many likes other people are about: so few of them that their likes share pages of the index, which doubles
# the speed, and enough for a network.
_CROWD_LIKES = 10_000
_CROWD_PEOPLE = 500


@dataclass(frozen=True)
class Sizes:
    """How much to make.

    Attributes:
        follow_limit: How many people one person can follow.
    """

    users: int
    posts: int
    likes: int
    comments: int
    follows: int
    follow_limit: int
    pictures: int

    @property
    def possible_pictures(self) -> int:
        """How many pictures there is a place for."""
        return self.users + _PICTURES_PER_POST * self.posts

    def check(self) -> None:
        """Refuse what cannot be.

        Raises:
            ValueError: names the option.
        """
        limits = {
            "posts": (self.posts, None if self.users else 0, "without people"),
            "likes": (self.likes, self.users * self.posts, "at most one per person and post"),
            "pictures": (
                self.pictures,
                self.possible_pictures,
                f"at most one of each person, and {_PICTURES_PER_POST} in each post",
            ),
            "comments": (self.comments, None if self.posts else 0, "without posts"),
            "follows": (
                self.follows,
                self.users * min(max(self.users - 1, 0), self.follow_limit),
                f"at most one from each person to each other, and {self.follow_limit:,} per person",
            ),
        }
        for name, (wanted, limit, why) in limits.items():
            if limit is not None and wanted > limit:
                raise ValueError(f"--{name} {wanted}: {limit:,} are possible here ({why}).")


@dataclass
class Network:
    """What was made so far: the parts of a person or post are found under the same index in each list.

    The rows come from the functions of this module, in the order people, posts, and then the rest. Whoever stores the
    rows of people and posts adds their `user_ids` and `usernames`, or `post_ids`, before the next kind is begun.

    Attributes:
        end: When everything has happened, in microseconds since 1970.
        active, popular: Indexes of people, each as often as they do something, or are followed.
        portrayed: Those of the most popular people, who have avatars.
        illustrated: The numbers of the pictures in each post that has some, by its index: in the newest posts. Before
            them those of avatars are counted.
    """

    seed: int
    sizes: Sizes
    end: int
    active: list[int] = field(init=False)
    popular: list[int] = field(init=False)
    portrayed: list[int] = field(init=False)
    illustrated: dict[int, range] = field(init=False)
    user_ids: list[int] = field(default_factory=list)
    joined: list[int] = field(default_factory=list)
    usernames: list[str] = field(default_factory=list)
    post_ids: list[int] = field(default_factory=list)
    posted: list[int] = field(default_factory=list)
    authors: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        rng = self.rng("ranks")
        self.active = _ranked(rng, self.sizes.users, 0.7)
        self.popular = _ranked(rng, self.sizes.users, 0.9)
        portraits = min(self.sizes.users, max(self.sizes.pictures // 4, self._too_many_for_posts()))
        self.portrayed = list(itertools.islice(dict.fromkeys(self.popular), portraits))
        self.illustrated = _hung(self.rng("hanging"), self.sizes, portraits)

    def rng(self, subject: str) -> Random:
        """The random numbers of one subject: how many another one takes is of no importance to it."""
        return Random(f"{self.seed} {subject}")

    def _too_many_for_posts(self) -> int:
        return self.sizes.pictures - _PICTURES_PER_POST * self.sizes.posts


class WantedPicture(NamedTuple):
    """A picture that is to be drawn.

    Attributes:
        number: From 0 on.
        seed: Of the random numbers that it is drawn with.
        portrait: Whether it is its owner's avatar, and not in a post.
        create_time: In microseconds since 1970.
    """

    number: int
    seed: str
    portrait: bool
    owner_id: int
    create_time: int


class Newcomer(NamedTuple):
    """Somebody who has no username yet.

    `create_time` is in microseconds since 1970.
    """

    name: demo_words.Name
    bio: str
    create_time: int


def people(network: Network) -> Iterator[Newcomer]:
    """People, the first to join first."""
    rng = network.rng("people")
    # More of them came early.
    for age in sorted((rng.random() ** 0.5 for _ in range(network.sizes.users)), reverse=True):
        network.joined.append(network.end - int(age * _YEAR))
        yield Newcomer(demo_words.name(rng), demo_words.bio(rng), network.joined[-1])


def posts(network: Network) -> Iterator[dict[str, Any]]:
    """Posts by the names of their columns, the oldest first. Whose they are is known before the first one comes."""
    rng = network.rng("posts")
    authors = rng.choices(network.active, k=network.sizes.posts) if network.sizes.posts else []
    for create_time, author in sorted((_between(rng, network.joined[who], network.end), who) for who in authors):
        network.posted.append(create_time)
        network.authors.append(author)
    return _written(network, rng)


def _written(network: Network, rng: Random) -> Iterator[dict[str, Any]]:
    for post, (create_time, author) in enumerate(zip(network.posted, network.authors, strict=True)):
        pictures = 1 if rng.random() < 0.7 else rng.randint(2, 5)
        seeds = [rng.randrange(1_000_000) for _ in range(pictures)]
        addresses = [f"https://picsum.photos/seed/{seed}/1080/1080" for seed in seeds]
        yield {
            "author_id": network.user_ids[author],
            "title": demo_words.title(rng),
            "description": demo_words.description(rng),
            "image_urls": json.dumps([] if post in network.illustrated else addresses),
            "create_time": create_time,
        }


def pictures(network: Network) -> Iterator[WantedPicture]:
    """Pictures in the order of their numbers: of people and posts that are known."""
    for number, who in enumerate(network.portrayed):
        yield WantedPicture(
            number, f"{network.seed} picture {number}", True, network.user_ids[who], network.joined[who]
        )
    for post, numbers in network.illustrated.items():
        author_id = network.user_ids[network.authors[post]]
        for number in numbers:
            yield WantedPicture(number, f"{network.seed} picture {number}", False, author_id, network.posted[post])


def likes(network: Network) -> Iterator[tuple[int, int, int]]:
    """Likes as (create_time, user_id, post_id), post by post."""
    rng = network.rng("likes")
    counts = _shares(_appeal(network, rng), network.sizes.likes, network.sizes.users)
    crowd: list[int] = []
    crowd_likes = _CROWD_LIKES
    for post, count in enumerate(counts):
        if crowd_likes >= _CROWD_LIKES:
            crowd = list(dict.fromkeys(rng.choices(network.active, k=_CROWD_PEOPLE)))
            crowd_likes = 0
        crowd_likes += count
        likers = rng.sample(range(network.sizes.users), count) if 2 * count > len(crowd) else _some(rng, crowd, count)
        yield from sorted(
            (_soon(rng, network, post, who), network.user_ids[who], network.post_ids[post]) for who in likers
        )


def comments(network: Network) -> Iterator[tuple[int, int, int, str, int]]:
    """Comments as (create_time, author_id, post_id, text, update_time), post by post."""
    rng = network.rng("comments")
    counts = _shares(_appeal(network, rng), network.sizes.comments, network.sizes.comments)
    for post, count in enumerate(counts):
        moments = sorted((_soon(rng, network, post, who), who) for who in rng.choices(network.active, k=count))
        for moment, who in moments:
            yield moment, network.user_ids[who], network.post_ids[post], demo_words.comment(rng), moment


def follows(network: Network) -> Iterator[tuple[int, int, int]]:
    """Follows as (create_time, follower_id, followee_id), follower by follower."""
    rng = network.rng("follows")
    users = network.sizes.users
    activity = Counter(network.active)
    counts = _shares(
        [activity[who] for who in range(users)], network.sizes.follows, min(users - 1, network.sizes.follow_limit)
    )
    for follower, count in enumerate(counts):
        if 4 * count > users:
            followees: Iterable[int] = (other + (other >= follower) for other in rng.sample(range(users - 1), count))
        else:
            followees = _some(rng, network.popular, count, but=follower)
        yield from sorted(
            (
                _between(rng, max(network.joined[follower], network.joined[followee]), network.end),
                network.user_ids[follower],
                network.user_ids[followee],
            )
            for followee in followees
        )


def _ranked(rng: Random, count: int, exponent: float) -> list[int]:
    """The numbers below `count` in random order, each as often as its rank in a power law says, and at least once."""
    order = list(range(count))
    rng.shuffle(order)
    weights = [(rank + 3) ** -exponent for rank in range(count)]
    scale = 8 * count / sum(weights) if weights else 0
    return [number for number, weight in zip(order, weights, strict=True) for _ in range(max(1, round(weight * scale)))]


def _hung(rng: Random, sizes: Sizes, number: int) -> dict[int, range]:
    """The numbers of pictures from `number` on, by the posts that show them, the newest first."""
    shown = {}
    for post in reversed(range(sizes.posts)):
        left = sizes.pictures - number
        if not left:
            break
        # No fewer than leave enough for the older posts.
        count = min(left, max(rng.choice((1, 1, 1, 2, 3)), left - _PICTURES_PER_POST * post))
        shown[post] = range(number, number + count)
        number += count
    return shown


def _appeal(network: Network, rng: Random) -> list[float]:
    """How much each post is looked at: more if its author is popular, and a matter of luck."""
    fame = Counter(network.popular)
    return [fame[author] ** 0.6 * rng.lognormvariate(0, 1) for author in network.authors]


def _shares(weights: Sequence[float], total: int, cap: int) -> list[int]:
    """`total`, split by weight into whole numbers of at most `cap`."""
    shares = [0] * len(weights)
    heaviest_first = sorted(range(len(weights)), key=weights.__getitem__, reverse=True)
    left = total
    while left:
        takers = [index for index in heaviest_first if shares[index] < cap]
        scale = left / sum(weights[index] for index in takers)
        for index in takers:
            share = min(max(int(weights[index] * scale), 1), cap - shares[index], left)
            shares[index] += share
            left -= share
    return shares


def _some(rng: Random, numbers: Sequence[int], count: int, but: int = -1) -> Iterable[int]:
    """`count` different numbers of a much longer list."""
    chosen = dict.fromkeys(rng.choices(numbers, k=count))
    chosen.pop(but, None)
    while len(chosen) < count:
        if (number := numbers[int(rng.random() * len(numbers))]) != but:
            chosen[number] = None
    return chosen


def _soon(rng: Random, network: Network, post: int, who: int) -> int:
    """When somebody meets a post: mostly within days."""
    least = max(network.posted[post], network.joined[who])
    return least + int((network.end - least) * rng.random() ** 6)


def _between(rng: Random, least: int, end: int) -> int:
    return least + int((end - least) * rng.random())
