"""Suites that run as their users run them: the `insta` command in processes of its own, on free ports."""

from __future__ import annotations

import asyncio
import os
import re
import select
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from click.testing import CliRunner

from chassis.errors import AlreadyExists
from chassis.settings import from_environment
from services.users import accounts
from services.users.passwords import Passwords
from suite.composition import SERVICES
from suite.databases import open_store
from suite.main import main
from tests import postgres_server

# Whether the tests run on a PostgreSQL server: make test DB=postgresql.
ON_POSTGRESQL = os.environ.get("INSTA_TEST_DB") == "postgresql"
DATABASES = ("users", "posts", "social")
MODES = {
    "together": ("up",),
    "apart": ("apart",),
    "workers": ("up", "--workers", "2"),
}
SUPERUSER = "boss"
PASSWORD = "correct horse battery staple"
_READY = re.compile(r"^(\w+) +gRPC on (\S+), metrics on (\S+)$", re.MULTILINE)
_IMAGES = re.compile(r"^posts +images on (\S+)$", re.MULTILINE)
_START_TIMEOUT_SECONDS = 60
_LOOPBACK = "127.0.0.1:0"


@dataclass
class RunningSuite:
    """A suite that answers calls.

    Attributes:
        mode: A key of `MODES`.
        address: host:port of the gateway.
        metrics_url: Of the gateway's process, or of all workers.
        images_url: Of the posts service, or of all workers. Empty: images are in a bucket.
        addresses: host:port of each part that listens.
        environment: With it the `insta` command works on the same data.
        said: What it printed when it was ready.
    """

    mode: str
    address: str
    metrics_url: str
    images_url: str
    addresses: Mapping[str, str]
    environment: Mapping[str, str]
    process: subprocess.Popen[str] | None
    log: Path | None
    said: str = ""

    def certificates(self, name: str) -> Path:
        """The folder of the certificate with which a service proves itself to the parts, apart."""
        return Path(self.environment["INSTA_DATA"]) / "tls" / name


def at(address: str) -> RunningSuite:
    """A suite that others started: nothing is known of it but the gateway's address."""
    return RunningSuite("there", address, "", "", {"gateway": address}, {}, None, None)


def environment(data: Path, **settings: str) -> dict[str, str]:
    """An environment for the `insta` command: free ports, cheap passwords, and nothing of the developer's own."""
    # Without compiled modules every start would take a fifth longer.
    others = ("INSTA_", "PROMETHEUS_", "PYTHONDONTWRITEBYTECODE")
    clean = {name: value for name, value in os.environ.items() if not name.startswith(others)}
    return {
        **clean,
        "INSTA_DATA": str(data),
        "INSTA_LISTEN": _LOOPBACK,
        "INSTA_METRICS_LISTEN": _LOOPBACK,
        "INSTA_MEDIA_LISTEN": _LOOPBACK,
        "INSTA_USERS_ADDRESS": _LOOPBACK,
        "INSTA_POSTS_ADDRESS": _LOOPBACK,
        "INSTA_SOCIAL_ADDRESS": _LOOPBACK,
        "INSTA_BCRYPT_COST": "4",
        "INSTA_LOG_LEVEL": "debug",
        # Tests share the processors with each other.
        "INSTA_MAX_WAIT_MILLISECONDS": "10000",
        "INSTA_LOGIN_THROTTLE": "false",
        "INSTA_MUTATIONS_PER_MINUTE": "0",
        **(database_urls(data) if ON_POSTGRESQL else {}),
        **settings,
    }


def database_urls(data: Path) -> dict[str, str]:
    """Settings for the databases that take the place of the files in a folder."""
    return {f"INSTA_{name.upper()}_DATABASE_URL": postgres_server.address(data / f"{name}.db") for name in DATABASES}


def insta(
    *arguments: str, environment: Mapping[str, str], stdin: str = "", version: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Run the `insta` command to its end.

    Args:
        version: The folder of its code. None: this one.
    """
    return subprocess.run(
        [sys.executable, "-m", "suite", *arguments],
        cwd=version,
        env=environment,
        input=stdin,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def insta_here(*arguments: str, environment: Mapping[str, str], stdin: str = "") -> subprocess.CompletedProcess[str]:
    """As `insta`, without a process, whose start takes longer than most commands: to see what one says and does.

    Raises:
        Exception: what the command did not tell in a sentence.
    """
    # Nothing of the developer's own, nor what another command may have set.
    unset = {name: None for name in os.environ if name.startswith("INSTA_")}
    # Tests run in an event loop, and some commands in one of their own.
    with ThreadPoolExecutor(1) as thread:
        result = thread.submit(CliRunner().invoke, main, arguments, input=stdin, env={**unset, **environment}).result(
            60
        )
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return subprocess.CompletedProcess(arguments, result.exit_code, result.stdout, result.stderr)


@contextmanager
def running(mode: str, data: Path, *, superuser: bool = True, **settings: str) -> Iterator[RunningSuite]:
    """Start a suite, and stop it at the end.

    Args:
        superuser: Make one named `SUPERUSER`, if it is not there.
    """
    given = environment(data, **settings)
    data.mkdir(parents=True, exist_ok=True)
    if superuser:
        ensure_superuser(given)
    log = data / "suite.log"
    with log.open("a") as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", "suite", *MODES[mode]], env=given, stdout=subprocess.PIPE, stderr=errors, text=True
        )
    try:
        said = _announced(process, log)
        parts = {name: (grpc, metrics) for name, grpc, metrics in _READY.findall(said)}
        images = _IMAGES.search(said)
        yield RunningSuite(
            mode=mode,
            address=parts["gateway"][0],
            metrics_url=parts["gateway"][1],
            images_url=images[1] if images else "",
            addresses={name: grpc for name, (grpc, _) in parts.items()},
            environment=given,
            process=process,
            log=log,
            said=said,
        )
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            raise


def ensure_superuser(given: Mapping[str, str]) -> None:
    """What `insta superuser create` does, without a process of its own."""
    settings = from_environment(given)
    # Tests run in an event loop.
    with ThreadPoolExecutor(1) as thread:
        password_hash = thread.submit(asyncio.run, Passwords(settings.bcrypt_cost).hash(PASSWORD)).result()
    with closing(open_store(settings, SERVICES["users"])) as users, suppress(AlreadyExists):
        users.write_now(
            accounts.create,
            username=SUPERUSER,
            email="boss@example.com",
            password_hash=password_hash,
            first_name="Admin",
            last_name="",
            bio="",
            superuser=True,
        )


def _announced(process: subprocess.Popen[str], log: Path) -> str:
    """What a suite says of itself when it is ready."""
    assert process.stdout is not None
    said = ""
    deadline = time.monotonic() + _START_TIMEOUT_SECONDS
    while "Stop with Ctrl-C." not in said:
        readable, _, _ = select.select([process.stdout], [], [], max(deadline - time.monotonic(), 0))
        chunk = os.read(process.stdout.fileno(), 65536).decode() if readable else ""
        if not chunk:
            process.kill()
            raise AssertionError(f"the suite did not start:\n{said}\n{log.read_text()}")
        said += chunk
    return said
