"""What calls cost as data grow: the same calls to suites that hold networks of one shape in several sizes.

The suites run side by side, and one at a time is under load, so that what the machine does meanwhile meets all alike.
"""

from __future__ import annotations

import base64
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from google.protobuf import message

from benchmarks import data, sides, sizes
from benchmarks.load import Call, Load, rpc
from benchmarks.measuring import BUSY, Measured, measure
from benchmarks.sides import Side
from benchmarks.sizes import Network, Size
from insta.gateway.v1 import feed_pb2, posts_pb2, profiles_pb2

SIZES = (sizes.SMALL, sizes.MIDDLE, sizes.LARGE)
# How much more a read may cost in a large network than in the smallest.
FLAT = 1.3
# What the first page of a feed may cost, in seconds of the processor, by how many others its reader follows.
FEED_LIMITS = {1_000: 0.0025, 5_000: 0.010}
MEMORY_LIMIT_BYTES = 150_000_000

_AT_ONCE = 16
_WARM_UP_SECONDS = 0.3
_VIEWERS = 20
# So many different ones are asked for: more than caches hold.
_ASKED = 5_000
_CHANGED = 2_000
_PAGE = 20
_CALM_SECONDS = 0.5
_CALM_WITHIN_SECONDS = 120.0


@dataclass(frozen=True)
class Asked:
    """What a kind of call is about in one network.

    Attributes:
        calls: Made in turn. Tokens are those of `_callers`.
        check: Whether an answer is the right one.
    """

    calls: Sequence[Call]
    check: Callable[[bytes], bool]


@dataclass(frozen=True)
class Kind:
    """A kind of call.

    Attributes:
        ask: Takes the network and a source of random numbers, of which each round has another.
        limit: What it may cost at most, in seconds of the processor.
    """

    name: str
    ask: Callable[[Network, random.Random], Asked]
    limit: float | None = None


@dataclass
class Cost:
    """What a kind of call cost in one network, one figure for each round."""

    rounds: list[Measured] = field(default_factory=list)
    wrong: int = 0

    @property
    def cpu_seconds(self) -> float:
        return statistics.median(each.cpu_seconds for each in self.rounds)

    @property
    def counts(self) -> bool:
        """Whether the core was busy, and each call was answered, and rightly."""
        busy = statistics.median(each.busy for each in self.rounds) >= BUSY
        return busy and not self.wrong and all(set(each.codes) == {"OK"} for each in self.rounds)

    def json(self) -> dict[str, Any]:
        return {
            "cpu_seconds": self.cpu_seconds,
            "rounds": [each.cpu_seconds for each in self.rounds],
            "per_second": statistics.median(each.per_second for each in self.rounds),
            "busy": statistics.median(each.busy for each in self.rounds),
            "counts": self.counts,
        }


def run(
    rounds: int = 3,
    seconds: float = 1.0,
    of: Sequence[Size] = SIZES,
    report: sizes.Report = lambda what, seconds: None,
) -> dict[str, Any]:
    """Measure all kinds of calls in networks of these sizes, the smallest first.

    Args:
        seconds: How long each load lasts.
        report: Told what was done, and how many seconds it took.
    """
    with ExitStack() as open_, tempfile.TemporaryDirectory(dir=_work()) as folder:
        suites = [(size, *_suite(open_, size, Path(folder) / str(number), report)) for number, size in enumerate(of)]
        kinds = [*_reads(of[0]), *_changes()]
        costs = {kind.name: [Cost() for _ in of] for kind in kinds}
        # What changes the networks comes when all has been read.
        for some in (_reads(of[0]), _changes()):
            for number in range(rounds):
                began = time.perf_counter()
                tokens = [data.bearers(_settings(side), _callers(network)) for _, network, side in suites]
                for kind in some:
                    for index, (_, network, side) in enumerate(suites):
                        asked = kind.ask(network, random.Random(f"{number} {kind.name}"))
                        _add(costs[kind.name][index], side, asked, tokens[index], seconds)
                report(f"round {number + 1} of {rounds} done", time.perf_counter() - began)
        memory = [side.rss_bytes() for _, _, side in suites]
    return _results(of, kinds, costs, memory)


def _suite(
    open_: ExitStack, size: Size, folder: Path, report: sizes.Report
) -> tuple[Network, Side]:
    network = sizes.serve(size, folder, report)
    side = open_.enter_context(sides.together(folder))
    _calm(side)
    return network, side


def _calm(side: Side) -> None:
    """Wait until a suite that has just started has looked through its data."""
    until = time.monotonic() + _CALM_WITHIN_SECONDS
    before = side.cpu_seconds()
    while time.monotonic() < until:
        time.sleep(_CALM_SECONDS)
        now = side.cpu_seconds()
        if now - before <= _CALM_SECONDS / 20:
            return
        before = now
    raise RuntimeError("a suite that nobody calls is still busy; its log says with what")


def _add(cost: Cost, side: Side, asked: Asked, tokens: Sequence[str], seconds: float) -> None:
    load = Load(
        side.address,
        asked.calls,
        tokens,
        seconds,
        at_once=_AT_ONCE,
        warm_up=min(_WARM_UP_SECONDS, seconds),
        keep=20,
        core=sides.LOAD_CORE,
    )
    measured = measure(side, load)
    cost.rounds.append(measured)
    cost.wrong += sum(not asked.check(base64.b64decode(each.answer)) for each in measured.kept)


def _results(
    of: Sequence[Size], kinds: Sequence[Kind], costs: Mapping[str, Sequence[Cost]], memory: Sequence[int]
) -> dict[str, Any]:
    reads = {kind.name for kind in _reads(of[0])}
    return {
        "sizes": [size.name for size in of],
        "memory_bytes": memory,
        "memory_limit_bytes": MEMORY_LIMIT_BYTES,
        "memory_met": max(memory) <= MEMORY_LIMIT_BYTES,
        "calls": [_result(kind, costs[kind.name], reads=kind.name in reads) for kind in kinds],
    }


def _result(kind: Kind, costs: Sequence[Cost], *, reads: bool) -> dict[str, Any]:
    first = costs[0].cpu_seconds
    growth = max(cost.cpu_seconds / first for cost in costs)
    most = max(cost.cpu_seconds for cost in costs)
    return {
        "call": kind.name,
        "reads": reads,
        "costs": [cost.json() for cost in costs],
        "growth": growth,
        "growth_limit": FLAT if reads else None,
        "limit_seconds": kind.limit,
        "met": not (reads and growth > FLAT) and not (kind.limit is not None and most > kind.limit),
    }


def _reads(size: Size) -> list[Kind]:
    feeds = [
        Kind(f"ListHomeFeed of 20, {count:,} followees", _feed(count), FEED_LIMITS.get(count))
        for _, count in size.readers
    ]
    return [
        Kind("GetPost", lambda network, rng: _get_post(rng.choices(range(1, network.size.posts + 1), k=_ASKED))),
        Kind("GetPost, the most liked", lambda network, rng: _get_post([network.hit])),
        Kind("GetProfile", lambda network, rng: _get_profile(rng.choices(network.prolific, k=_ASKED))),
        Kind("GetProfile, the most followed", lambda network, rng: _get_profile([network.star])),
        Kind("ListComments of 20", lambda network, rng: _comments(rng.choices(network.discussed, k=_ASKED))),
        Kind("ListPostLikes of 20", lambda network, rng: _likes(rng.choices(network.liked, k=_ASKED))),
        Kind("ListPostLikes of 20, the most liked", lambda network, rng: _likes([network.hit])),
        Kind("ListFollowers of 20", lambda network, rng: _followers(rng.choices(network.prolific, k=_ASKED))),
        Kind("ListFollowers of 20, the most followed", lambda network, rng: _followers([network.star])),
        Kind("ListProfilePosts of 20", lambda network, rng: _posts_of(rng.choices(network.prolific, k=_ASKED))),
        *feeds,
    ]


def _changes() -> list[Kind]:
    return [
        Kind("LikePost and UnlikePost", _like_any),
        Kind("LikePost and UnlikePost, the most liked", _like_the_hit),
        Kind("FollowUser and UnfollowUser, the most followed", _follow_the_star),
        Kind("CreatePost, by the most followed", _create_post),
    ]


def _viewers(network: Network) -> list[int]:
    """People who follow nobody that is read, and like nothing of it, but perhaps by chance."""
    rng = random.Random("viewers")
    taken = {network.star, *(reader for some in network.readers.values() for reader in some)}
    ids = (rng.randint(1, network.size.people) for _ in range(10 * _VIEWERS))
    return [user_id for user_id in dict.fromkeys(ids) if user_id not in taken][:_VIEWERS]


def _callers(network: Network) -> list[int]:
    """Whose tokens the calls need, in the order of `Call.token`: the star's, the viewers', then the readers' of feeds."""
    return [network.star, *_viewers(network), *(reader for some in network.readers.values() for reader in some)]


def _by_viewers(method: str, requests: Sequence[message.Message]) -> list[Call]:
    """Calls by one viewer after the other. One request is asked by all of them."""
    many = requests if len(requests) > 1 else requests * _VIEWERS
    return [rpc(method, request, 1 + number % _VIEWERS) for number, request in enumerate(many)]


_POSTS, _PROFILES = "/insta.gateway.v1.PostService/", "/insta.gateway.v1.ProfileService/"


def _get_post(post_ids: Sequence[int]) -> Asked:
    requests = [posts_pb2.GetPostRequest(post_id=post_id) for post_id in post_ids]
    asked = set(post_ids)

    def right(answer: bytes) -> bool:
        post = posts_pb2.GetPostResponse.FromString(answer).post
        return post.id in asked and not post.author.gone

    return Asked(_by_viewers(_POSTS + "GetPost", requests), right)


def _get_profile(user_ids: Sequence[int]) -> Asked:
    requests = [profiles_pb2.GetProfileRequest(user_id=user_id) for user_id in user_ids]

    def right(answer: bytes) -> bool:
        profile = profiles_pb2.GetProfileResponse.FromString(answer).profile
        return profile.post_count > 0 and profile.follower_count > 0

    return Asked(_by_viewers(_PROFILES + "GetProfile", requests), right)


def _comments(post_ids: Sequence[int]) -> Asked:
    requests = [posts_pb2.ListCommentsRequest(post_id=post_id) for post_id in post_ids]
    return Asked(_by_viewers(_POSTS + "ListComments", requests), _page(posts_pb2.ListCommentsResponse, "comments"))


def _likes(post_ids: Sequence[int]) -> Asked:
    requests = [posts_pb2.ListPostLikesRequest(post_id=post_id) for post_id in post_ids]
    return Asked(_by_viewers(_POSTS + "ListPostLikes", requests), _page(posts_pb2.ListPostLikesResponse, "profiles"))


def _followers(user_ids: Sequence[int]) -> Asked:
    requests = [profiles_pb2.ListFollowersRequest(user_id=user_id) for user_id in user_ids]
    right = _page(profiles_pb2.ListFollowersResponse, "followers")
    return Asked(_by_viewers(_PROFILES + "ListFollowers", requests), right)


def _posts_of(user_ids: Sequence[int]) -> Asked:
    requests = [profiles_pb2.ListProfilePostsRequest(user_id=user_id) for user_id in user_ids]
    right = _page(profiles_pb2.ListProfilePostsResponse, "posts")
    return Asked(_by_viewers(_PROFILES + "ListProfilePosts", requests), right)


def _feed(followees: int) -> Callable[[Network, random.Random], Asked]:
    def ask(network: Network, rng: random.Random) -> Asked:
        callers = _callers(network)
        readers = [callers.index(reader) for reader in network.readers[followees]]
        request = feed_pb2.ListHomeFeedRequest()
        calls = [rpc("/insta.gateway.v1.FeedService/ListHomeFeed", request, reader) for reader in readers]
        return Asked(calls, _page(feed_pb2.ListHomeFeedResponse, "posts"))

    return ask


def _page(response: type[message.Message], name: str) -> Callable[[bytes], bool]:
    """A full page that is not the last."""

    def right(answer: bytes) -> bool:
        page: Any = response.FromString(answer)
        return len(getattr(page, name)) == _PAGE and bool(page.next_page_token)

    return right


def _there_and_back(there: Iterator[Call], back: Iterator[Call]) -> list[Call]:
    """Each of them changes something, again and again: they are too far apart to overtake each other."""
    return [*there, *back]


def _any_answer(answer: bytes) -> bool:
    return True


def _like_any(network: Network, rng: random.Random) -> Asked:
    post_ids = rng.sample(range(1, network.size.posts + 1), min(_CHANGED, network.size.posts))
    # Those of one round are another's in the next: how the last one ended is of no importance.
    first = rng.randrange(_VIEWERS)
    liked = [(post_id, 1 + (first + number) % _VIEWERS) for number, post_id in enumerate(post_ids)]
    return _liking(liked)


def _like_the_hit(network: Network, rng: random.Random) -> Asked:
    return _liking([(network.hit, 1 + number) for number in range(_VIEWERS)])


def _liking(liked: Sequence[tuple[int, int]]) -> Asked:
    there = (rpc(_POSTS + "LikePost", posts_pb2.LikePostRequest(post_id=post), viewer) for post, viewer in liked)
    back = (rpc(_POSTS + "UnlikePost", posts_pb2.UnlikePostRequest(post_id=post), viewer) for post, viewer in liked)
    return Asked(_there_and_back(there, back), _any_answer)


def _follow_the_star(network: Network, rng: random.Random) -> Asked:
    follow = profiles_pb2.FollowUserRequest(user_id=network.star)
    unfollow = profiles_pb2.UnfollowUserRequest(user_id=network.star)
    viewers = range(1, 1 + _VIEWERS)
    there = (rpc(_PROFILES + "FollowUser", follow, viewer) for viewer in viewers)
    back = (rpc(_PROFILES + "UnfollowUser", unfollow, viewer) for viewer in viewers)
    return Asked(_there_and_back(there, back), _any_answer)


def _create_post(network: Network, rng: random.Random) -> Asked:
    request = posts_pb2.CreatePostRequest(
        title="As many will see at once", image_urls=["https://pictures.example.com/1/1080/1080"]
    )

    def right(answer: bytes) -> bool:
        return posts_pb2.CreatePostResponse.FromString(answer).post.author.id == network.star

    return Asked([rpc(_POSTS + "CreatePost", request)], right)


def _settings(side: Side) -> Any:
    assert side.settings is not None
    return side.settings


def _work() -> Path:
    """On the disk of the build, which need not be that of the temporary files."""
    sides.BUILD.mkdir(parents=True, exist_ok=True)
    return sides.BUILD
