"""Group commit: durable writes a second where each sync of the disk takes long, and what one client alone waits for."""

from __future__ import annotations

import asyncio
import random
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict, astuple, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks import data, sides, sizes
from benchmarks.load import Call, Load, rpc
from benchmarks.measuring import Measured, measure
from benchmarks.options import Options
from benchmarks.report import Bars, Goal, Part, Rows, Verdict, figure, judged
from benchmarks.sides import BUILD, LOAD_CORE, SERVER_CORE, Side
from benchmarks.sizes import Network, Size
from benchmarks.slow_disk import Disk
from chassis.sqlite import SQLiteStore
from insta.gateway.v1 import posts_pb2
from services.social import likes
from services.social.service import SERVICE as SOCIAL

NAME, TITLE = "disk", "Group commit: durable writes on a disk whose syncs take 2 ms"
SYNC_SECONDS = 0.002
CLIENTS = 64
LEAST_PER_SECOND = 2_500
# Who is alone waits for the sync of their own write, and for what the call takes without it.
ALONE_SYNCS = 1.5

_VIEWERS = 50
# More than a core could answer.
_MOST_PER_SECOND = 8_000
_LIKE, _CREATE = "/insta.gateway.v1.PostService/LikePost", "/insta.gateway.v1.PostService/CreatePost"
_USUAL, _SLOW = "usual disk", "2 ms a sync"


@dataclass(frozen=True)
class Written:
    """What came of writes to a store: how many in each second, how long one took, and syncs for each."""

    per_second: float
    p50: float
    syncs: float


def run(options: Options, console: Console) -> Part:
    """Measure writes through the API, and through the store of a service alone, on a slow disk and on the usual one."""
    return of_size(sizes.SMALL, options, console)


def of_size(size: Size, options: Options, console: Console) -> Part:
    """Measure writes to a network of a size."""
    BUILD.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="disk-", dir=BUILD) as folder:
        return _Writes(size, options, console, Path(folder)).part()


class _Writes:
    """The measuring of writes, with folders for the databases."""

    def __init__(self, size: Size, options: Options, console: Console, folder: Path) -> None:
        self._options = options
        self._console = console
        self._folder = folder
        self._network = sizes.serve(size, folder / "usual")
        sizes.serve(size, folder / "slow")
        self._calls: dict[tuple[str, str, int], list[Measured]] = {}
        self._stores: dict[int, list[Written]] = {}

    def part(self) -> Part:
        """Measure, and sum up."""
        core = SERVER_CORE if self._options.pinned else None
        slow_disk = ("benchmarks.slow_disk", str(SYNC_SECONDS))
        with (
            sides.together(self._folder / "usual", core) as usual,
            sides.together(self._folder / "slow", core, slow_disk) as slow,
        ):
            for number in range(self._options.rounds):
                for disk, side in ((_USUAL, usual), (_SLOW, slow)):
                    self._call(number, disk, side)
                with usual.aside(), slow.aside():
                    self._write(number)
        return Part(NAME, TITLE, self._verdicts(), self._bars(), [self._rows()], self._figures())

    def _call(self, number: int, disk: str, side: Side) -> None:
        tokens = data.bearers(_settings(side), _viewers(self._network))
        lasts = self._options.warm_up + self._options.seconds
        for clients in (1, CLIENTS):
            for name, calls in _calls(self._network, f"{number} {clients}", lasts).items():
                load = Load(
                    side.address,
                    calls,
                    tokens,
                    self._options.seconds,
                    at_once=clients,
                    warm_up=self._options.warm_up,
                    once=len(calls) > _VIEWERS,
                    core=LOAD_CORE if self._options.pinned else None,
                )
                found = measure(side, load)
                self._calls.setdefault((name, disk, clients), []).append(found)
                self._tell(f"{name}, {disk}, {clients} at once", found.per_second, found.p50, found.busy)

    def _write(self, number: int) -> None:
        for clients in (1, CLIENTS):
            path = self._folder / f"store {number} {clients}"
            written = asyncio.run(write(path, clients, self._options.seconds))
            self._stores.setdefault(clients, []).append(written)
            self._tell(f"store alone, {_SLOW}, {clients} at once", written.per_second, written.p50)

    def _tell(self, what: str, per_second: float, p50: float, busy: float | None = None) -> None:
        core = "" if busy is None else f"  {busy:4.0%} busy"
        self._console.print(
            f"{what:40} {per_second:7,.0f}/s  p50 {p50 * 1e3:6.2f} ms{core}", style="dim", highlight=False
        )

    def _verdicts(self) -> list[Verdict]:
        verdicts = []
        for name in dict.fromkeys(name for name, _, _ in self._calls):
            rounds = self._calls[name, _SLOW, CLIENTS]
            goal = Goal(f"{name}, {CLIENTS} clients, {_SLOW}", "", LEAST_PER_SECOND, unit="a second")
            verdicts.append(judged(goal, [each.per_second for each in rounds], _doubt(rounds)))
        goal = Goal(f"store alone, {CLIENTS} clients, {_SLOW}", "", LEAST_PER_SECOND, unit="a second")
        verdicts.append(judged(goal, [each.per_second for each in self._stores[CLIENTS]]))
        for name in dict.fromkeys(name for name, _, _ in self._calls):
            slow, usual = self._calls[name, _SLOW, 1], self._calls[name, _USUAL, 1]
            waited = [(one.p50 - other.p50) / SYNC_SECONDS for one, other in zip(slow, usual, strict=True)]
            goal = Goal(f"{name}, one client alone: waits for", _USUAL, ALONE_SYNCS, unit="syncs", at_most=True)
            verdicts.append(judged(goal, waited, _doubt([*slow, *usual])))
        return verdicts

    def _bars(self) -> list[Bars]:
        rows = [
            (f"{name}, {clients} at once", disk, statistics.median(each.per_second for each in rounds))
            for (name, disk, clients), rounds in self._calls.items()
        ]
        rows.sort(key=lambda row: row[0])
        return [Bars("Durable writes through the API", "a second", rows)]

    def _rows(self) -> Rows:
        rows = [
            (f"{name}, {clients} at once", disk, *_figures_of(rounds), "")
            for (name, disk, clients), rounds in self._calls.items()
        ]
        for clients, written in self._stores.items():
            per_second, p50, syncs = (statistics.median(values) for values in zip(*map(astuple, written), strict=True))
            of_store = (figure(per_second), "", figure(p50 * 1e3), "", figure(syncs))
            rows.append((f"store alone, {clients} at once", _SLOW, *of_store))
        headings = ("writes", "disk", "a second", "core busy", "p50 ms", "p99 ms", "syncs a write")
        return Rows("Medians of the rounds", headings, rows)

    def _figures(self) -> dict[str, Any]:
        return {
            "sync_seconds": SYNC_SECONDS,
            "measured": [
                {
                    "call": name,
                    "disk": disk,
                    "clients": clients,
                    "per_second": [each.per_second for each in rounds],
                    "busy": [each.busy for each in rounds],
                    "p50_milliseconds": [each.p50 * 1e3 for each in rounds],
                    "p99_milliseconds": [each.p99 * 1e3 for each in rounds],
                    "codes": dict(sum((each.codes for each in rounds), Counter[str]())),
                }
                for (name, disk, clients), rounds in self._calls.items()
            ],
            "stores": [
                {"clients": clients, "rounds": [asdict(each) for each in written]}
                for clients, written in self._stores.items()
            ],
        }


def _figures_of(rounds: Sequence[Measured]) -> tuple[str, str, str, str]:
    per_second, busy, p50, p99 = (
        statistics.median(values)
        for values in zip(
            *((each.per_second, each.busy, each.p50 * 1e3, each.p99 * 1e3) for each in rounds), strict=True
        )
    )
    return figure(per_second), f"{busy:.0%}", figure(p50), figure(p99)


def _doubt(rounds: Sequence[Measured]) -> str:
    """Why what was measured does not count. Empty: it does."""
    failed = sum((each.codes for each in rounds), Counter[str]()).keys() - {"OK"}
    return f"calls failed with {', '.join(sorted(failed))}" if failed else ""


def _viewers(network: Network) -> list[int]:
    return random.Random("viewers").sample(range(1, network.size.people + 1), _VIEWERS)


def _calls(network: Network, moment: str, seconds: float) -> dict[str, list[Call]]:
    """Calls that all change something: nobody likes a post a second time."""
    rng = random.Random(moment)
    post_ids = rng.sample(range(1, network.size.posts + 1), network.size.posts)
    liked = [(viewer, post_id) for viewer in range(_VIEWERS) for post_id in post_ids]
    some = rng.sample(liked, min(len(liked), int(_MOST_PER_SECOND * seconds)))
    post = posts_pb2.CreatePostRequest(
        title="A post of a usual length", image_urls=["https://pictures.example.com/1/1080/1080"]
    )
    return {
        "LikePost": [rpc(_LIKE, posts_pb2.LikePostRequest(post_id=post_id), viewer) for viewer, post_id in some],
        "CreatePost": [rpc(_CREATE, post, viewer) for viewer in range(_VIEWERS)],
    }


async def write(folder: Path, clients: int, seconds: float) -> Written:
    """Likes, made by so many at a time, straight through the store of the social service."""
    disk = Disk(f"slow {folder.name}", SYNC_SECONDS)
    assert SOCIAL.migrations is not None
    with closing(SQLiteStore(folder / "social.db", SOCIAL.migrations, vfs=disk.name)) as store:
        taken: list[float] = []
        before = disk.syncs
        began = time.perf_counter()

        async def client(user_id: int) -> None:
            post_id = 0
            while (now := time.perf_counter()) < began + seconds:
                post_id += 1
                await store.write(likes.add, post_id, user_id)
                taken.append(time.perf_counter() - now)

        await asyncio.gather(*(client(1 + number) for number in range(clients)))
        lasted = time.perf_counter() - began
        return Written(len(taken) / lasted, statistics.median(taken), (disk.syncs - before) / len(taken))


def _settings(side: Side) -> Any:
    assert side.settings is not None
    return side.settings
