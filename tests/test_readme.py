"""The tour and the client in the README work, word for word."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from tests.running import running

PROJECT = Path(__file__).parent.parent
ADDRESS = "127.0.0.1:50051"


def test_the_tour_works_as_it_stands_on_a_fresh_suite(tmp_path: Path) -> None:
    readme = (PROJECT / "README.md").read_text()
    commands = _blocks(readme, "sh")
    (client,) = _blocks(readme, "python")
    with running("together", tmp_path / "var", superuser=False) as suite:
        toured = subprocess.run(
            ["bash", "-euxo", "pipefail", "-c", _at(suite.address, tmp_path) + "\n".join(commands) + "echo token $ANA"],
            cwd=PROJECT,
            env={**suite.environment, "INSTA_LISTEN": suite.address},
            capture_output=True,
            text=True,
            check=False,
        )
        token = toured.stdout.rpartition("token ")[2].strip()
        called = subprocess.run(
            [
                sys.executable,
                "-c",
                f"access_token = {token!r}\n{client.replace(ADDRESS, suite.address)}print(post.title)",
            ],
            env={**suite.environment, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
            capture_output=True,
            text=True,
            check=False,
        )

    said = toured.stdout
    assert toured.returncode == 0, f"{said}\n{toured.stderr}"
    for expected in (
        '"username": "ben"',
        '"followerCount": "1"',
        '"likeCount": "1"',
        '"viewerLiked": true',
        '"viewerFollows": true',
        "Worth the early hour",
        "/media/",
        '"altText": "The Mandelbrot set"',
        "insta.gateway.v1.PostService",
        "// Posts, their likes and their comments.",
    ):
        assert expected in said
    assert called.stdout == "First light\n", called.stderr


def test_every_make_command_that_is_named_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (PROJECT / "Makefile").read_text(), re.MULTILINE))

    named = set()
    for page in ("README.md", "CONTRIBUTING.md"):
        named |= set(re.findall(r"\bmake ([a-z-]+)", (PROJECT / page).read_text()))

    assert {"run", "test"} <= named <= targets


def _blocks(page: str, language: str) -> list[str]:
    """The code of a language in a page."""
    return re.findall(rf"^```{language}\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)


def _at(address: str, scratch: Path) -> str:
    """Shell that lets grpcurl find the suite of the test where the README says that it is."""
    grpcurl = Path(sys.executable).with_name("grpcurl")
    shim = scratch / "grpcurl"
    shim.write_text(f'#!/bin/bash\nexec "{grpcurl}" "${{@/{ADDRESS}/{address}}}"\n')
    shim.chmod(0o755)
    assert os.access(grpcurl, os.X_OK)
    # A function, because the tour itself puts a folder in front of the PATH.
    return f'grpcurl() {{ "{shim}" "$@"; }}\n'
