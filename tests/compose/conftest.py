"""Tests of the containers take an engine and some minutes: they run only if named, as `make compose-test` does."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.compose.containers import FORMS, Containers
from tests.running import PASSWORD, SUPERUSER

_HERE = Path(__file__).parent


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    named = (config.invocation_params.dir / argument.partition("::")[0] for argument in config.args)
    return None if any(path.resolve().is_relative_to(_HERE) for path in named) else True


@pytest.fixture(scope="session", params=FORMS)
def containers(request: pytest.FixtureRequest) -> Iterator[Containers]:
    """The suite in containers, in each of its forms, with a superuser."""
    has_plugin = subprocess.run(["docker", "compose", "version"], capture_output=True, check=False).returncode == 0
    made = Containers(["docker", "compose"] if has_plugin else ["docker-compose"], request.param)
    try:
        made.compose("build")
        made.up()
        options = ("--username", SUPERUSER, "--email", "boss@example.com", "--password-stdin")
        made.compose("exec", "-T", "users", "insta", "superuser", "create", *options, stdin=PASSWORD + "\n")
        yield made
    finally:
        made.compose("down", "--volumes")
