"""Disks so small that tests can fill them up."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import apsw
import pytest


@contextmanager
def small(folder: Path, megabytes: int) -> Iterator[Path]:
    """A disk of so many megabytes, in a folder that is made. Without the right to mount one the test is skipped."""
    folder.mkdir()
    size = f"size={megabytes}m"
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", size, "tmpfs", folder], capture_output=True)
    if mounted.returncode:
        pytest.skip("needs the right to mount a file system")
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


@contextmanager
def closing_fails(monkeypatch: pytest.MonkeyPatch, module: ModuleType, name: str, database: Path) -> Iterator[None]:
    """What was written last to a SQLite database stays in its write-ahead log, as on a full disk, and nobody is told.

    Somebody reads it from the time on when a function of a module is called.
    """
    original = getattr(module, name)
    with ExitStack() as held:

        def call(*args: Any) -> Any:
            reader = held.enter_context(closing(apsw.Connection(str(database))))
            reader.execute("SELECT count(*) FROM sqlite_master").fetchall()
            return original(*args)

        monkeypatch.setattr(module, name, call)
        yield


def fill_up(disk: Path) -> Path:
    """Take all the space that is left. Returns the file that holds it."""
    ballast = disk / "ballast"
    with ballast.open("wb", buffering=0) as file:
        for size in (1 << 16, 1 << 12, 1):
            try:
                while True:
                    file.write(bytes(size))
            except OSError:
                continue
    return ballast
