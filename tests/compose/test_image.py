"""The image that all parts are run from."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

# It is built.
pytestmark = pytest.mark.timeout(1800)

PROJECT = Path(__file__).parents[2]
_MOST_OVER_ITS_BASE = 250_000_000
# As docker-compose.yml and deploy/kubernetes run it.
_CONFINED = (
    "--read-only", "--cap-drop=ALL", "--security-opt=no-new-privileges", "--network=none",
    "--tmpfs=/tmp", "--tmpfs=/var/lib/insta:uid=10001,mode=700",
)  # fmt: skip
_TOOLS = "gcc cc g++ c++ clang make ld as cargo rustc git curl wget"


@pytest.fixture(scope="module")
def image() -> Iterator[str]:
    name = f"insta-test-{os.getpid()}"
    _docker("build", "--quiet", "--build-arg=PIP_INDEX_URL", "--build-arg=PIP_EXTRA_INDEX_URL", f"--tag={name}", ".")
    yield name
    _docker("image", "rm", name)


def test_it_adds_little_to_its_base(image: str) -> None:
    (base,) = re.findall(r"^ARG BASE=(\S+)$", (PROJECT / "Dockerfile").read_text(), re.MULTILINE)

    added = _bytes(image) - _bytes(base)

    assert 0 < added < _MOST_OVER_ITS_BASE


def test_nobody_in_it_is_root(image: str) -> None:
    assert _run(image, "sh", "-c", "id -u; id -g; id -G").split() == ["10001", "10001", "10001"]
    # A number, by which Kubernetes can tell.
    assert _docker("image", "inspect", "--format={{.Config.User}}", image) == "10001:10001\n"


def test_nothing_in_it_makes_a_program(image: str) -> None:
    found = _run(image, "sh", "-c", f"for tool in {_TOOLS}; do command -v $tool; done; true")

    assert found == ""
    assert "pip" not in _run(image, "ls", "/opt/insta/bin").split()


def test_nothing_in_it_can_be_changed_by_who_runs_in_it(image: str) -> None:
    writable = "find / -xdev -writable -not -type l -not -path '/proc/*' -not -path '/dev/*' -not -path '/etc/insta/*'"

    found = _run(image, "sh", "-c", f"{writable} 2>/dev/null; true", confined=False).split()

    assert "/var/lib/insta" in found
    # What any Debian leaves to everybody; read-only, it is not that either.
    assert set(found) <= {"/var/lib/insta", "/tmp", "/var/tmp", "/run/lock"}


def test_it_has_what_databases_and_buckets_take(image: str) -> None:
    assert "social" in _run(image, "insta", "migrate")
    _run(image, "python", "-c", "import boto3")


def test_a_part_in_it_serves_without_being_able_to_write(image: str) -> None:
    script = """
        export INSTA_INSECURE_PLAINTEXT=true INSTA_LISTEN=127.0.0.1:50052
        insta serve users &
        for attempt in $(seq 100); do python -m suite.probe users 2>/dev/null && break; sleep 0.2; done
        python -m suite.probe users && echo serves
        touch /opt/insta/changed 2>/dev/null && echo writes
        kill %1 && wait %1 && echo ended
    """

    said = _run(image, "bash", "-c", script).split("\n")

    assert [line for line in said if line in ("serves", "writes", "ended")] == ["serves", "ended"]


def _run(image: str, command: str, *arguments: str, confined: bool = True) -> str:
    options = _CONFINED if confined else ("--network=none",)
    return _docker("run", "--rm", *options, f"--entrypoint={command}", image, *arguments)


def _bytes(image: str) -> int:
    return int(_docker("image", "inspect", "--format={{.Size}}", image))


def _docker(*arguments: str) -> str:
    done = subprocess.run(("docker", *arguments), cwd=PROJECT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"docker {' '.join(arguments)}:\n{done.stdout}\n{done.stderr}"
    return done.stdout
