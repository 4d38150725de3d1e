"""Clients in other languages: built from stubs that the descriptor set alone gives, they use a running suite.

What is built lies in `build/clients`, what is fetched in the caches of `go` and `npm`: a second run takes seconds.
"""

from __future__ import annotations

import fcntl
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from insta.gateway.v1 import profiles_pb2
from suite.client_config import client_config
from tests.people import People
from tests.running import RunningSuite

SOURCES = Path(__file__).parent
PROJECT = SOURCES.parents[1]
BUILD = PROJECT / "build" / "clients"
# How `go` and `npm` say that they reach no registry, or that a newer `go` would have to be fetched and may not.
_OFFLINE = re.compile(
    r"dial tcp|no such host|i/o timeout|TLS handshake timeout|GOPROXY=off|GOTOOLCHAIN=local"
    r"|ENOTFOUND|EAI_AGAIN|ECONNREFUSED|ECONNRESET|ETIMEDOUT|ENOTCACHED"
)


@dataclass(frozen=True)
class Language:
    """How a client is built and run.

    Attributes:
        tools: Commands that must be there.
        fetch: Gets the packages, in the folder of the sources.
        build: Builds all stubs and the client, in a folder that holds both.
        run: The client, in the same folder.
    """

    name: str
    tools: tuple[str, ...]
    fetch: tuple[str, ...]
    build: tuple[tuple[str, ...], ...]
    run: tuple[str, ...]

    @property
    def sources(self) -> Path:
        return SOURCES / self.name

    @property
    def folder(self) -> Path:
        return BUILD / "gen" / self.name


GO = Language(
    name="go",
    tools=("go",),
    fetch=("go", "mod", "download"),
    build=(("go", "build", "./..."), ("go", "build", "-o", "client", ".")),
    run=("./client",),
)
TYPESCRIPT = Language(
    name="typescript",
    tools=("node", "npm"),
    fetch=("npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"),
    build=(("node_modules/.bin/tsc",),),
    run=("node", "out/client.js"),
)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("language", [GO, TYPESCRIPT], ids=lambda language: language.name)
async def test_a_client_joins_posts_reads_an_error_and_pages_a_list(language: Language, together: RunningSuite) -> None:
    with _alone(language):
        _fetch(language)
        _generate(language)
        for command in language.build:
            _done(_run(command, language.folder))
        config = CliRunner().invoke(client_config).output
        saw = json.loads(_done(_run((*language.run, together.address, config), language.folder)))

    error = saw["error"]
    assert (error["code"], error["domain"], error["reason"]) == ("INVALID_ARGUMENT", "insta", "INVALID_FIELDS")
    assert set(error["fields"]) == {"title"}
    assert [len(page) for page in saw["pages"]] == [2, 2, 1]
    assert [post for page in saw["pages"] for post in page] == await _posts(together, saw)
    assert saw["pages"][-1] == [saw["post_id"]]


async def _posts(suite: RunningSuite, saw: dict[str, Any]) -> list[str]:
    """The ids of the posts of the client's person, as somebody else sees them."""
    people = People(suite.address)
    try:
        reader = await people.join()
        found = await reader.profiles.GetProfile(profiles_pb2.GetProfileRequest(username=saw["username"]))
        assert str(found.profile.id) == saw["user_id"]
        listed = await reader.profiles.ListProfilePosts(profiles_pb2.ListProfilePostsRequest(user_id=found.profile.id))
        return [str(post.id) for post in listed.posts]
    finally:
        await people.channel.close()


@contextmanager
def _alone(language: Language) -> Iterator[None]:
    """Hold the language's folders: several test runs may share them."""
    BUILD.mkdir(parents=True, exist_ok=True)
    with (BUILD / f"{language.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _fetch(language: Language) -> None:
    """Get the packages, unless they are there; skip the test where that cannot be."""
    for tool in language.tools:
        if shutil.which(tool) is None:
            pytest.skip(f"`{tool}` is not installed")
    # `go` looks into its cache first; `npm ci` installs everything again, so it is not asked twice.
    wanted, installed = (language.sources / name for name in ("package-lock.json", "node_modules/.package-lock.json"))
    if installed.exists() and installed.stat().st_mtime >= wanted.stat().st_mtime:
        return
    fetched = _run(language.fetch, language.sources)
    if fetched.returncode and (why := _OFFLINE.search(fetched.stderr)):
        pytest.skip(f"`{' '.join(language.fetch)}` reaches no registry ({why.group()})")
    _done(fetched)


def _generate(language: Language) -> None:
    """Write the stubs into an empty folder, and lay the client's sources beside them."""
    shutil.rmtree(language.folder, ignore_errors=True)
    buf = Path(sys.executable).with_name("buf")
    options = ("--path", "insta", "--template", _template(language), "--output", str(BUILD))
    _done(_run((str(buf), "generate", "insta/insta.binpb", *options), PROJECT))
    for source in language.sources.iterdir():
        (language.folder / source.name).symlink_to(source)


def _template(language: Language) -> str:
    """`buf.gen.yaml` without the other languages, whose tools may be missing."""
    head, *plugins = re.split(r"^(?=  - local: )", (PROJECT / "buf.gen.yaml").read_text(), flags=re.MULTILINE)
    return head + "".join(plugin for plugin in plugins if f"out: gen/{language.name}\n" in plugin)


def _run(command: tuple[str, ...], folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=500, check=False)


def _done(run: subprocess.CompletedProcess[str]) -> str:
    """The standard output of a command that must have succeeded."""
    assert run.returncode == 0, f"{run.args}\n{run.stdout}\n{run.stderr}"
    return run.stdout
