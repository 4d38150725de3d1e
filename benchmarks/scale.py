"""What calls cost as data grow: the same calls to suites that hold networks of one shape in several sizes.

The suites run side by side, and one at a time is under load, so that what the machine does meanwhile meets all alike.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

from google.protobuf import message
from rich.console import Console

from benchmarks import data, sides, sizes
from benchmarks.load import Call, Load, rpc
from benchmarks.measuring import BUSY, Measured, measure
from benchmarks.options import Options
from benchmarks.report import Bars, Goal, Part, Rows, Verdict, figure, judged
from benchmarks.sides import BUILD, LOAD_CORE, SERVER_CORE, Side
from benchmarks.sizes import Network, Size
from insta.gateway.v1 import feed_pb2, posts_pb2, profiles_pb2

NAME, TITLE = "scale", "The same calls as data grow"
SIZES = (sizes.SMALL, sizes.MIDDLE, sizes.LARGE)
# How much more a read may cost in a large network than in the smallest.
FLAT = 1.3
# What the first page of a feed may cost, in milliseconds of the processor, by how many others its reader follows.
FEED_LIMITS = {1_000: 2.5, 5_000: 10.0}
MEMORY_MEGABYTES = 150.0

# Enough to keep the core busy; more of the dearest calls would wait for so long that some are refused.
_AT_ONCE = 8
# What a call costs is known after a second, and there are many kinds and sizes.
_SECONDS = 1.0
_WARM_UP_SECONDS = 0.3
_VIEWERS = 20
# Of so many answers one is looked at.
_KEEP = 20
# So many posts or people are asked for, and so many lists of 20: more than databases keep in memory.
_ASKED = 5_000
_LISTS = 500
# To ask for each of them once takes a few seconds.
_FIRST_SECONDS = 10.0
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
        limit: What it may cost at most, in milliseconds of the processor.
        reads: Whether it changes nothing.
    """

    name: str
    ask: Callable[[Network, Random], Asked]
    limit: float | None = None
    reads: bool = True


class _Served(NamedTuple):
    """A network and the suite that holds it."""

    network: Network
    side: Side


def run(options: Options, console: Console) -> Part:
    """Measure all kinds of calls in networks of all sizes."""
    return of_sizes(SIZES, options, console)


def of_sizes(of: Sequence[Size], options: Options, console: Console, names: Collection[str] = ()) -> Part:
    """Measure the kinds of calls with these names, or all, in networks of these sizes, the smallest first."""
    BUILD.mkdir(parents=True, exist_ok=True)
    # On the disk of the networks that are kept, and not in the memory that temporary files may be in.
    with ExitStack() as open_, tempfile.TemporaryDirectory(prefix="scale-", dir=BUILD) as folder:
        served = [_serve(open_, size, Path(folder) / str(number), options, console) for number, size in enumerate(of)]
        return _Growth(served, options, console, names).part()


def _serve(open_: ExitStack, size: Size, folder: Path, options: Options, console: Console) -> _Served:
    def report(what: str, seconds: float) -> None:
        console.print(f"{what} in {seconds:.1f} s", style="dim", highlight=False)

    network = sizes.serve(size, folder, report)
    side = open_.enter_context(sides.together(folder, SERVER_CORE if options.pinned else None))
    _calm(side)
    return _Served(network, side)


def _calm(side: Side) -> None:
    """Wait until a suite that has just started has looked through its data."""
    until = time.monotonic() + _CALM_WITHIN_SECONDS
    before = side.cpu_seconds()
    while time.monotonic() < until:
        time.sleep(_CALM_SECONDS)
        now = side.cpu_seconds()
        if now - before <= _CALM_SECONDS / 10:
            return
        before = now
    raise RuntimeError("a suite that nobody calls is still busy; its log says with what")


class _Growth:
    """The measuring in networks that are served, the smallest first."""

    def __init__(self, served: Sequence[_Served], options: Options, console: Console, names: Collection[str]) -> None:
        self._served = served
        self._options = options
        self._console = console
        self._kinds = [kind for kind in kinds(served[0].network.size) if not names or kind.name in names]
        self._measured: dict[str, list[list[Measured]]] = {kind.name: [[] for _ in served] for kind in self._kinds}
        self._first: dict[str, list[Measured]] = {}
        self._wrong: Counter[str] = Counter()
        self._rss = [0] * len(served)

    def part(self) -> Part:
        """Measure, and sum up."""
        self._first_time()
        # What changes the networks comes when all has been read.
        for reads in (True, False):
            some = [kind for kind in self._kinds if kind.reads == reads]
            for number in range(self._options.rounds):
                began = time.perf_counter()
                self._round(number, some)
                took = f"{'reads' if reads else 'changes'}, round {number + 1} of {self._options.rounds}"
                self._console.print(f"{took} in {time.perf_counter() - began:.1f} s", style="dim", highlight=False)
            self._rss = [max(rss, of.side.rss_bytes()) for rss, of in zip(self._rss, self._served, strict=True)]
        tables = [self._rows(), self._rows_of_first_time()]
        return Part(NAME, TITLE, self._verdicts(), self._bars(), tables, self._figures())

    def _first_time(self) -> None:
        """All that will be read, once: suites show people for the first time, and keep their short profiles."""
        began = time.perf_counter()
        tokens = self._tokens()
        for kind in self._kinds:
            if kind.reads:
                self._first[kind.name] = [
                    self._measure_alone(of.side, self._first_load(of, kind, tokens[index]))
                    for index, of in enumerate(self._served)
                ]
        took = time.perf_counter() - began
        self._console.print(f"reads, for the first time in {took:.1f} s", style="dim", highlight=False)

    def _first_load(self, of: _Served, kind: Kind, tokens: Sequence[str]) -> Load:
        load = self._load(of.side, kind.ask(of.network, Random(kind.name)).calls, tokens)
        seconds = _FIRST_SECONDS * min(self._options.warm_up, 1.0)
        return replace(load, seconds=seconds, warm_up=0, once=True)

    def _tokens(self) -> list[list[str]]:
        """Of each network. They live for minutes."""
        return [data.bearers(_settings(of.side), _callers(of.network)) for of in self._served]

    def _round(self, number: int, some: Sequence[Kind]) -> None:
        """Each kind of call in all networks, one after the other."""
        tokens = self._tokens()
        for kind in some:
            for index, of in enumerate(self._served):
                # What is read is the same each time, and was read before.
                asked = kind.ask(of.network, Random(kind.name if kind.reads else f"{number} {kind.name}"))
                found = self._measure_alone(of.side, self._load(of.side, asked.calls, tokens[index]))
                self._measured[kind.name][index].append(found)
                self._wrong[kind.name] += sum(not asked.check(each.message) for each in found.kept)

    def _measure_alone(self, side: Side, load: Load) -> Measured:
        """While no other suite runs."""
        with ExitStack() as aside:
            for of in self._served:
                if of.side is not side:
                    aside.enter_context(of.side.aside())
            return measure(side, load)

    def _load(self, side: Side, calls: Sequence[Call], tokens: Sequence[str]) -> Load:
        return Load(
            side.address,
            calls,
            tokens,
            min(self._options.seconds, _SECONDS),
            at_once=min(_AT_ONCE, self._options.at_most),
            warm_up=min(self._options.warm_up, _WARM_UP_SECONDS),
            keep=_KEEP,
            core=LOAD_CORE if self._options.pinned else None,
        )

    def _verdicts(self) -> list[Verdict]:
        smallest = self._served[0].network.size.name
        verdicts = []
        for kind in self._kinds:
            rounds, doubt = self._measured[kind.name], self._doubt(kind)
            if kind.reads and len(rounds) > 1:
                growth = [_growth(rounds[0], large) for large in rounds[1:]]
                goal = Goal(kind.name, smallest, FLAT, at_most=True)
                verdicts.append(judged(goal, max(growth, key=statistics.median), doubt))
        for kind in self._kinds:
            if kind.limit is not None:
                costs = [[each.cpu_seconds * 1e3 for each in rounds] for rounds in self._measured[kind.name]]
                goal = Goal(f"{kind.name}: CPU of the first page", "", kind.limit, unit="ms", at_most=True)
                verdicts.append(judged(goal, max(costs, key=statistics.median), self._doubt(kind)))
        goal = Goal("memory of insta up, at its most", "", MEMORY_MEGABYTES, unit="MB", at_most=True)
        return [*verdicts, judged(goal, [max(self._rss) / 1e6])]

    def _doubt(self, kind: Kind) -> str:
        """Why what was measured of a kind of call does not count. Empty: it does."""
        doubts = []
        for of, rounds in zip(self._served, self._measured[kind.name], strict=True):
            name = of.network.size.name
            busy = statistics.median(each.busy for each in rounds)
            failed = sum((each.codes for each in rounds), Counter[str]()).keys() - {"OK"}
            if busy < BUSY:
                doubts.append(f"with {name} the core was {busy:.0%} busy")
            if failed:
                doubts.append(f"with {name} calls failed with {', '.join(sorted(failed))}")
        if self._wrong[kind.name]:
            doubts.append(f"{self._wrong[kind.name]} answers were wrong")
        return "; ".join(doubts)

    def _bars(self) -> list[Bars]:
        rows = [
            (kind.name, of.network.size.name, _median(rounds) * 1e6)
            for kind in self._kinds
            for of, rounds in zip(self._served, self._measured[kind.name], strict=True)
        ]
        return [Bars("CPU of a call", "µs", rows)]

    def _rows(self) -> Rows:
        names = [of.network.size.name for of in self._served]
        rows = []
        for kind in self._kinds:
            first, *larger = self._measured[kind.name]
            growth = [figure(statistics.median(_growth(first, rounds))) for rounds in larger]
            rows.append((kind.name, *(figure(_median(rounds) * 1e6) for rounds in (first, *larger)), *growth))
        headings = ("call", *(f"µs: {name}" for name in names), *(f"x: {name}" for name in names[1:]))
        return Rows("CPU of a call, and how many times what it costs in the smallest network", headings, rows)

    def _rows_of_first_time(self) -> Rows:
        rows = [
            (name, *(figure(each.cpu_seconds * 1e6) for each in found))
            for name, found in self._first.items()
            # The processor's time is known to hundredths of a second.
            if min(each.codes["OK"] for each in found) >= _LISTS
        ]
        headings = ("call", *(f"µs: {of.network.size.name}" for of in self._served))
        return Rows("CPU of a call, when each was made for the first time", headings, rows)

    def _figures(self) -> dict[str, Any]:
        return {
            "sizes": [asdict(of.network.size) for of in self._served],
            "rss_bytes": self._rss,
            "wrong": dict(+self._wrong),
            "first_time_microseconds": {
                name: [each.cpu_seconds * 1e6 for each in found] for name, found in self._first.items()
            },
            "measured": [
                {
                    "call": kind.name,
                    "size": of.network.size.name,
                    "cpu_microseconds": [each.cpu_seconds * 1e6 for each in rounds],
                    "per_second": [each.per_second for each in rounds],
                    "busy": [each.busy for each in rounds],
                    "codes": dict(sum((each.codes for each in rounds), Counter[str]())),
                }
                for kind in self._kinds
                for of, rounds in zip(self._served, self._measured[kind.name], strict=True)
            ],
        }


def _growth(first: Sequence[Measured], rounds: Sequence[Measured]) -> list[float]:
    """Round by round how many times what it cost first: the machine is not as fast from one minute to the next."""
    return [
        large.cpu_seconds / small.cpu_seconds for small, large in zip(first, rounds, strict=True) if small.cpu_seconds
    ]


def _median(rounds: Sequence[Measured]) -> float:
    return statistics.median(each.cpu_seconds for each in rounds)


def kinds(size: Size) -> list[Kind]:
    """All kinds of calls; feeds are those that readers of a size have."""
    return [*_reads(size), *_changes()]


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
        Kind("ListComments of 20", lambda network, rng: _comments(rng.choices(network.discussed, k=_LISTS))),
        Kind("ListPostLikes of 20", lambda network, rng: _likes(rng.choices(network.liked, k=_LISTS))),
        Kind("ListPostLikes of 20, the most liked", lambda network, rng: _likes([network.hit])),
        Kind("ListFollowers of 20", lambda network, rng: _followers(rng.choices(network.prolific, k=_LISTS))),
        Kind("ListFollowers of 20, the most followed", lambda network, rng: _followers([network.star])),
        Kind("ListProfilePosts of 20", lambda network, rng: _posts_of(rng.choices(network.prolific, k=_LISTS))),
        *feeds,
    ]


def _changes() -> list[Kind]:
    return [
        Kind("LikePost and UnlikePost", _like_any, reads=False),
        Kind("LikePost and UnlikePost, the most liked", _like_the_hit, reads=False),
        Kind("FollowUser and UnfollowUser, the most followed", _follow_the_star, reads=False),
        Kind("CreatePost, by the most followed", _create_post, reads=False),
    ]


def _viewers(network: Network) -> list[int]:
    """People who follow nobody that is read, and like nothing of it, but perhaps by chance."""
    rng = Random("viewers")
    taken = {network.star, *(reader for some in network.readers.values() for reader in some)}
    ids = (rng.randint(1, network.size.people) for _ in range(10 * _VIEWERS))
    return [user_id for user_id in dict.fromkeys(ids) if user_id not in taken][:_VIEWERS]


def _callers(network: Network) -> list[int]:
    """Whose tokens the calls need, in the order of `Call.token`: the star's, viewers', and those of who reads feeds."""
    return [network.star, *_viewers(network), *(reader for some in network.readers.values() for reader in some)]


def _by_viewers(method: str, requests: Sequence[message.Message]) -> list[Call]:
    """Calls by one viewer after the other. One request is asked by all of them."""
    many = requests if len(requests) > 1 else [*requests] * _VIEWERS
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


def _feed(followees: int) -> Callable[[Network, Random], Asked]:
    def ask(network: Network, rng: Random) -> Asked:
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


def _like_any(network: Network, rng: Random) -> Asked:
    post_ids = rng.sample(range(1, network.size.posts + 1), min(_CHANGED, network.size.posts))
    # Those of one round are another's in the next: how the last one ended is of no importance.
    first = rng.randrange(_VIEWERS)
    liked = [(post_id, 1 + (first + number) % _VIEWERS) for number, post_id in enumerate(post_ids)]
    return _liking(liked)


def _like_the_hit(network: Network, rng: Random) -> Asked:
    return _liking([(network.hit, 1 + number) for number in range(_VIEWERS)])


def _liking(liked: Sequence[tuple[int, int]]) -> Asked:
    there = (rpc(_POSTS + "LikePost", posts_pb2.LikePostRequest(post_id=post), viewer) for post, viewer in liked)
    back = (rpc(_POSTS + "UnlikePost", posts_pb2.UnlikePostRequest(post_id=post), viewer) for post, viewer in liked)
    return Asked(_there_and_back(there, back), _any_answer)


def _follow_the_star(network: Network, rng: Random) -> Asked:
    follow = profiles_pb2.FollowUserRequest(user_id=network.star)
    unfollow = profiles_pb2.UnfollowUserRequest(user_id=network.star)
    viewers = range(1, 1 + _VIEWERS)
    there = (rpc(_PROFILES + "FollowUser", follow, viewer) for viewer in viewers)
    back = (rpc(_PROFILES + "UnfollowUser", unfollow, viewer) for viewer in viewers)
    return Asked(_there_and_back(there, back), _any_answer)


def _create_post(network: Network, rng: Random) -> Asked:
    request = posts_pb2.CreatePostRequest(
        title="As many will see at once", image_urls=["https://pictures.example.com/1/1080/1080"]
    )

    def right(answer: bytes) -> bool:
        return posts_pb2.CreatePostResponse.FromString(answer).post.author.id == network.star

    return Asked([rpc(_POSTS + "CreatePost", request)], right)


def _settings(side: Side) -> Any:
    assert side.settings is not None
    return side.settings
