"""The two sides of the mix, each with a world of its own."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks import data, peer, sides
from benchmarks.mix.apis import Grpc, Rest
from benchmarks.mix.contestant import Contestant
from benchmarks.mix.world import World
from benchmarks.sides import SERVER_CORE
from chassis.settings import Settings


@contextmanager
def suite(folder: Path, world: World, pinned: bool = True) -> Iterator[Contestant]:
    """The suite together.

    Args:
        folder: Where its data go; there is none yet.
        pinned: Whether server and load have a core each.
    """
    core = SERVER_CORE if pinned else None
    settings = Settings(data=folder)
    data.fill(settings, world)
    everybody = range(1, world.users + 1)
    with sides.together(folder, core) as side:
        yield Contestant(side, Grpc(), world, lambda: data.bearers(settings, everybody), pinned)


@contextmanager
def drf(folder: Path, programs: Path, world: World, pinned: bool = True) -> Iterator[Contestant]:
    """The Django REST framework server.

    Args:
        folder: Where its code and its data go; there is none yet.
        programs: Of its environment.
        pinned: Whether server and load have a core each.
    """
    core = SERVER_CORE if pinned else None
    shutil.copytree(peer.SOURCE, folder)
    rows = {name: getattr(world, name) for name in ("users", "authors", "follows", "likes", "comments")}
    fill = [str(programs / "python"), "manage.py", "fill"]
    subprocess.run(fill, cwd=folder, input=json.dumps(rows), text=True, check=True)
    everybody = range(1, world.users + 1)
    with sides.drf(folder, programs / "gunicorn", core) as side:
        yield Contestant(side, Rest(), world, lambda: peer.tokens(folder, everybody), pinned)
