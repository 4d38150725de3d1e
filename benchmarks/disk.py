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
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import services.social.service
from benchmarks import data, sides, sizes
from benchmarks.load import Call, Load, rpc
from benchmarks.measuring import Measured, measure
from benchmarks.sides import Side
from benchmarks.sizes import Network, Size
from benchmarks.slow_disk import Disk
from chassis.store import Store
from insta.gateway.v1 import posts_pb2
from services.social import likes

SYNC_SECONDS = 0.002
CLIENTS = 64
LEAST_PER_SECOND = 2_500
# Who is alone waits for the sync of their own write, and for what the call takes without it.
ALONE_SYNCS = 1.5

_VIEWERS = 50
_WARM_UP_SECONDS = 0.3
_LIKE, _CREATE = "/insta.gateway.v1.PostService/LikePost", "/insta.gateway.v1.PostService/CreatePost"
_USUAL, _SLOW = "the disk of this machine", "each sync takes 2 ms"


@dataclass(frozen=True)
class _Written:
    """What came of writes to a store: how many in each second, how long one took, and syncs for each."""

    per_second: float
    p50: float
    syncs: float


def run(
    rounds: int = 3,
    seconds: float = 2.0,
    size: Size = sizes.SMALL,
    report: sizes.Report = lambda what, seconds: None,
) -> dict[str, Any]:
    """Measure writes through the API, and through the store of a service alone, on a slow disk and on the usual one.

    Args:
        seconds: How long each load lasts.
        report: Told what was done, and how many seconds it took.
    """
    sides.BUILD.mkdir(parents=True, exist_ok=True)
    calls: dict[tuple[str, str, int], list[Measured]] = {}
    stores: dict[int, list[_Written]] = {}
    with tempfile.TemporaryDirectory(dir=sides.BUILD) as folder:
        work = Path(folder)
        usual, slow = work / "usual", work / "slow"
        network = sizes.serve(size, usual, report)
        sizes.serve(size, slow, report)
        slow_suite = ("benchmarks.slow_disk", str(SYNC_SECONDS))
        with sides.together(usual) as usual_side, sides.together(slow, module=slow_suite) as slow_side:
            for number in range(rounds):
                began = time.perf_counter()
                for disk, side in ((_USUAL, usual_side), (_SLOW, slow_side)):
                    tokens = data.bearers(_settings(side), _viewers(network))
                    for clients in (1, CLIENTS):
                        for name, made in _calls(network, f"{number} {clients}").items():
                            measured = _measure(side, made, tokens, clients, seconds)
                            calls.setdefault((name, disk, clients), []).append(measured)
                for clients in (1, CLIENTS):
                    path = work / f"store {number} {clients}"
                    stores.setdefault(clients, []).append(asyncio.run(_write(path, clients, seconds)))
                report(f"round {number + 1} of {rounds} done", time.perf_counter() - began)
    return _results(calls, stores)


def _viewers(network: Network) -> list[int]:
    return random.Random("viewers").sample(range(1, network.size.people + 1), _VIEWERS)


def _calls(network: Network, moment: str) -> dict[str, list[Call]]:
    """Calls that all change something: nobody likes a post a second time."""
    rng = random.Random(moment)
    post_ids = rng.sample(range(1, network.size.posts + 1), network.size.posts)
    liked = [(viewer, post_id) for viewer in range(_VIEWERS) for post_id in post_ids]
    some = rng.sample(liked, min(len(liked), 20_000))
    post = posts_pb2.CreatePostRequest(
        title="A post of a usual length", image_urls=["https://pictures.example.com/1/1080/1080"]
    )
    return {
        "LikePost": [rpc(_LIKE, posts_pb2.LikePostRequest(post_id=post_id), viewer) for viewer, post_id in some],
        "CreatePost": [rpc(_CREATE, post, viewer) for viewer in range(_VIEWERS)],
    }


def _measure(side: Side, calls: Sequence[Call], tokens: Sequence[str], clients: int, seconds: float) -> Measured:
    warm_up = min(_WARM_UP_SECONDS, seconds)
    load = Load(
        side.address, calls, tokens, seconds, at_once=clients, warm_up=warm_up, core=sides.LOAD_CORE
    )
    return measure(side, load)


async def _write(folder: Path, clients: int, seconds: float) -> _Written:
    """Likes, made by so many at a time, straight through the store of the social service."""
    disk = Disk(f"slow {folder.name}", SYNC_SECONDS)
    migrations = services.social.service.SERVICE.migrations
    assert migrations is not None
    with closing(Store(folder / "social.db", migrations, vfs=disk.name)) as store:
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
        return _Written(len(taken) / lasted, statistics.median(taken), (disk.syncs - before) / len(taken))


def _results(
    calls: dict[tuple[str, str, int], list[Measured]], stores: dict[int, list[_Written]]
) -> dict[str, Any]:
    made = [
        {
            "call": name,
            "disk": disk,
            "clients": clients,
            "per_second": statistics.median(each.per_second for each in measured),
            "p50": statistics.median(each.p50 for each in measured),
            "p99": statistics.median(each.p99 for each in measured),
            "busy": statistics.median(each.busy for each in measured),
            "codes": dict(sum((each.codes for each in measured), Counter[str]())),
        }
        for (name, disk, clients), measured in calls.items()
    ]
    straight = [
        {
            "clients": clients,
            "per_second": statistics.median(each.per_second for each in written),
            "p50": statistics.median(each.p50 for each in written),
            "syncs_per_write": statistics.median(each.syncs for each in written),
        }
        for clients, written in stores.items()
    ]
    by_key = {(each["call"], each["disk"], each["clients"]): each for each in made}
    bounds = []
    for name in dict.fromkeys(each["call"] for each in made):
        many = by_key[name, _SLOW, CLIENTS]
        bounds.append(
            {
                "what": f"{name}: writes a second of {CLIENTS} clients",
                "figure": many["per_second"],
                "at_least": LEAST_PER_SECOND,
                "met": many["per_second"] >= LEAST_PER_SECOND and set(many["codes"]) == {"OK"},
            }
        )
        waited = (by_key[name, _SLOW, 1]["p50"] - by_key[name, _USUAL, 1]["p50"]) / SYNC_SECONDS
        bounds.append(
            {
                "what": f"{name}: how many syncs one client alone waits for",
                "figure": waited,
                "at_most": ALONE_SYNCS,
                "met": waited <= ALONE_SYNCS,
            }
        )
    return {"sync_seconds": SYNC_SECONDS, "calls": made, "store": straight, "bounds": bounds}


def _settings(side: Side) -> Any:
    assert side.settings is not None
    return side.settings
