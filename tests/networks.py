"""Another machine, as a network namespace of this one on the other end of a cable."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

# Addresses for measurements between machines: no network has them.
HERE, THERE, NETWORK = "198.18.91.1", "198.18.91.2", "198.18.91.0/30"


class Machine:
    """The other machine.

    Attributes:
        prefix: What a command begins with that is run on it.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self.prefix = ["ip", "netns", "exec", name]

    def vanish(self) -> None:
        """Send nothing any more, and hear nothing: as if the power was cut."""
        _ip("-netns", self._name, "address", "flush", "dev", "there")


@contextmanager
def machine() -> Iterator[Machine]:
    """Without the right to make namespaces the test is skipped."""
    name = f"insta-{os.getpid()}"
    if subprocess.run(["ip", "netns", "add", name], capture_output=True).returncode:
        pytest.skip("needs the right to make network namespaces")
    try:
        here = f"insta{os.getpid()}"
        _ip("link", "add", here, "type", "veth", "peer", "there", "netns", name)
        try:
            _ip("address", "add", f"{HERE}/30", "dev", here)
            _ip("link", "set", here, "up")
            _ip("-netns", name, "address", "add", f"{THERE}/30", "dev", "there")
            _ip("-netns", name, "link", "set", "there", "up")
            yield Machine(name)
        finally:
            # Its other end goes with it.
            _ip("link", "delete", here)
    finally:
        _ip("netns", "delete", name)


def _ip(*command: str) -> None:
    subprocess.run(["ip", *command], check=True, capture_output=True)
