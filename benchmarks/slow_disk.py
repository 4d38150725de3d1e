"""A suite on a disk whose syncs take long: `python -m benchmarks.slow_disk SECONDS up` is `insta up` on one."""

from __future__ import annotations

import sys
import time
from typing import Any

import apsw

from suite.main import main as insta


class Disk(apsw.VFS):
    """What lies between SQLite and the real files: a VFS.

    Attributes:
        name: By which SQLite knows it.
        real: The name of the VFS below it.
        syncs: How many there were.

    Args:
        seconds: What each sync takes, the real one included.
        default: Whether it is what SQLite uses where no other is named.
    """

    def __init__(self, name: str, seconds: float, *, default: bool = False) -> None:
        self.name = name
        self.seconds = seconds
        self.syncs = 0
        # The first is the default one, until another is.
        self.real = apsw.vfs_names()[0]
        super().__init__(name, self.real, makedefault=default)

    def xOpen(self, name: Any, flags: list[int]) -> File:
        return File(self, name, flags)


class File(apsw.VFSFile):
    """A file on a `Disk`."""

    def __init__(self, disk: Disk, name: Any, flags: list[int]) -> None:
        super().__init__(disk.real, name, flags)
        self._disk = disk

    def xSync(self, flags: int) -> None:
        until = time.perf_counter() + self._disk.seconds
        super().xSync(flags)
        self._disk.syncs += 1
        time.sleep(max(until - time.perf_counter(), 0))


def main() -> None:
    _, seconds, *arguments = sys.argv
    # Bound to a name: it lasts as long as the object.
    disk = Disk("slow", float(seconds), default=True)
    insta(arguments)
    del disk


if __name__ == "__main__":
    main()
