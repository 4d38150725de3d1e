"""`python -m suite.probe`: what an orchestrator asks a part, apart and with the certificates of the part itself."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from suite.composition import SERVICES
from tests.certificates import Authority
from tests.running import RunningSuite, running


@pytest.fixture(scope="module")
def apart(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningSuite]:
    """A suite whose parts prove themselves to each other, and its gateway to everybody."""
    folder = tmp_path_factory.mktemp("probed")
    public = Authority().issue(folder / "public", "insta.example.com")
    own = {"INSTA_TLS_CERTIFICATE": str(public / "tls.crt"), "INSTA_TLS_KEY": str(public / "tls.key")}
    with running("apart", folder / "var", superuser=False, **own) as started:
        # As when it is renewed, by another authority: the gateway has the one of its start.
        shutil.copy(Authority().issue(folder / "renewed", "other.example.com") / "tls.crt", public)
        yield started


@pytest.mark.parametrize("name", SERVICES)
def test_a_part_that_serves_is_well(name: str, apart: RunningSuite) -> None:
    # Whatever the environment names as its proxy: nobody is there.
    asked = _probe(apart, name, grpc_proxy="http://127.0.0.1:1", no_grpc_proxy="")

    assert (asked.returncode, asked.stderr) == (0, "")


def test_a_part_that_is_not_there_is_not_well(apart: RunningSuite) -> None:
    asked = _probe(apart, "posts", INSTA_LISTEN="127.0.0.1:1")

    assert asked.returncode == 1
    assert asked.stderr.startswith("no answer: UNAVAILABLE")


def test_another_part_on_the_port_is_not_taken_for_it(apart: RunningSuite) -> None:
    asked = _probe(apart, "posts", INSTA_LISTEN=apart.addresses["users"])

    assert asked.returncode == 1


def test_certificates_that_are_missing_are_told_in_a_sentence(apart: RunningSuite, tmp_path: Path) -> None:
    asked = _probe(apart, "posts", INSTA_PEER_TLS=str(tmp_path))

    assert asked.returncode == 1
    assert asked.stderr == f"{tmp_path}/ca.crt cannot be read: No such file or directory\n"


def _probe(suite: RunningSuite, name: str, **settings: str) -> subprocess.CompletedProcess[str]:
    own = {"INSTA_LISTEN": suite.addresses[name], "INSTA_PEER_TLS": str(suite.certificates(name)), **settings}
    return subprocess.run(
        [sys.executable, "-m", "suite.probe", name],
        env={**suite.environment, **own},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
