"""A PostgreSQL server for tests, in a temporary folder and on a port of its own, and databases on it.

    with running() as server: server.address(path)

`make test DB=postgresql` runs the tests on one: `INSTA_TEST_POSTGRES` says where it is.
"""

from __future__ import annotations

import hashlib
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import psycopg
import pytest

from chassis.settings import DatabaseAddress
from tests import disks

VARIABLE = "INSTA_TEST_POSTGRES"
PASSWORD = "correct-horse"
_USER = "insta"
_START_SECONDS = 60
_SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "max_connections": "500",
    "shared_buffers": "64MB",
    "max_pred_locks_per_transaction": "256",
    "autovacuum_naptime": "5min",
    # Those who look how two transactions wait for each other do not wait long.
    "deadlock_timeout": "200ms",
}
# A write-ahead log for a small disk.
_SMALL_LOG = {"min_wal_size": "2MB", "max_wal_size": "4MB"}
# What is lost with the power is of no interest to most tests.
_HURRIED = {"fsync": "off", "full_page_writes": "off", "synchronous_commit": "off"}


class Server:
    """A server that runs.

    Attributes:
        port: On 127.0.0.1.
        folder: Of its data and its log.
    """

    def __init__(self, folder: Path, port: int, settings: dict[str, str]) -> None:
        self.folder = folder
        self.port = port
        self._settings = settings
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, and wait until it answers."""
        command = [_binary("postgres"), "-D", str(self.folder / "data"), "-p", str(self.port), "-k", str(self.folder)]
        for name, value in self._settings.items():
            command += ["-c", f"{name}={value}"]
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log, cwd=self.folder, **_unprivileged())
        end = time.monotonic() + _START_SECONDS
        while True:
            with suppress(psycopg.OperationalError), closing(psycopg.connect(url(self.port, "postgres"))):
                return
            if self._process.poll() is not None or time.monotonic() > end:
                raise AssertionError(f"PostgreSQL did not start:\n{(self.folder / 'log').read_text()}")
            time.sleep(0.05)

    @property
    def pid(self) -> int:
        """Of the process that started all others."""
        assert self._process is not None
        return self._process.pid

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """Stop it: with SIGINT at once and in order, with SIGQUIT as if it had crashed."""
        if self._process is not None:
            self._process.send_signal(how)
            self._process.wait(60)
            self._process = None

    @contextmanager
    def standby(self) -> Iterator[Server]:
        """A standby as of now: it takes its primary's place, and its port, once that is stopped and it is started."""
        folder = Path(tempfile.mkdtemp(prefix="insta-standby-", dir=self.folder.parent))
        try:
            if user := _unprivileged():
                os.chown(folder, user["user"], user["group"])
            command = [_binary("pg_basebackup"), "-D", str(folder / "data"), "-d", self.url()]
            options = ["--write-recovery-conf", "--checkpoint=fast", "--no-sync"]
            subprocess.run([*command, *options], check=True, capture_output=True, cwd=folder, **user)
            made = Server(folder, self.port, self._settings)
            try:
                yield made
            finally:
                made.stop()
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def show(self, certificate: Path) -> None:
        """Show whoever connects in a moment the certificate in a folder: tls.crt and tls.key."""
        assert self._process is not None
        _given(certificate, self.folder, _unprivileged())
        self._process.send_signal(signal.SIGHUP)

    def url(self, database: str = "postgres", user: str = _USER, password: str = PASSWORD) -> str:
        """The address of a database."""
        return f"postgresql://{user}:{password}@127.0.0.1:{self.port}/{database}"

    def run(self, statement: str, each_database: bool = False) -> None:
        """Run a statement on the server, or in each database but the templates."""
        names = ["postgres"]
        if each_database:
            with closing(psycopg.connect(self.url())) as connection:
                found = connection.execute("SELECT datname FROM pg_database WHERE datallowconn AND NOT datistemplate")
                names = [name for (name,) in found]
        for name in names:
            with closing(psycopg.connect(self.url(name), autocommit=True)) as connection:
                connection.execute(statement)

    def database(self, name: str, template: DatabaseAddress | None = None) -> str:
        """Make a database, empty or as a copy that nobody is connected to. Its address."""
        of = "" if template is None else f'TEMPLATE "{template.url.rpartition("/")[2]}"'
        with closing(psycopg.connect(self.url(), autocommit=True)) as connection:
            connection.execute(f'CREATE DATABASE "{name}" {of}')
        return self.url(name)


def url(port: int, database: str) -> str:
    """The address of a database on a server of this user."""
    return f"postgresql://{_USER}:{PASSWORD}@127.0.0.1:{port}/{database}"


def address(path: Path) -> str:
    """The address of the database that takes the place of a file. It is made at the first mention."""
    port, name = int(os.environ[VARIABLE]), name_of(path)
    made = url(port, name)
    try:
        psycopg.connect(made).close()
    except psycopg.OperationalError:
        # Another process may be faster.
        faster = suppress(psycopg.errors.DuplicateDatabase, psycopg.errors.UniqueViolation)
        with closing(psycopg.connect(url(port, "postgres"), autocommit=True)) as connection, faster:
            connection.execute(f'CREATE DATABASE "{name}"')
    return made


def name_of(path: Path) -> str:
    """What the server calls the database that takes the place of a file."""
    return f"t{hashlib.sha256(str(path.absolute()).encode()).hexdigest()[:20]}"


def copy(path: Path, target: Path) -> None:
    """Copy the database that takes the place of a file, to which nobody is connected."""
    with closing(psycopg.connect(url(int(os.environ[VARIABLE]), "postgres"), autocommit=True)) as connection:
        connection.execute(f'CREATE DATABASE "{name_of(target)}" TEMPLATE "{name_of(path)}"')


@contextmanager
def running(
    *,
    durable: bool = False,
    certificate: Path | None = None,
    megabytes: tuple[int, int] | None = None,
    folder: Path | None = None,
    settings: Mapping[str, str] | None = None,
) -> Iterator[Server]:
    """A new server.

    Args:
        durable: What it has committed outlives its crash.
        certificate: A folder of tls.crt and tls.key, which it shows its clients.
        megabytes: Of disks of its own for its data and its write-ahead log, the folders data and wal. None: on that of
            the tests.
        folder: In which its own is made. None: where the system keeps what is temporary.
        settings: Beside its usual ones, or in place of them.
    """
    folder = Path(tempfile.mkdtemp(prefix="insta-postgres-", dir=folder)).absolute()
    user = _unprivileged()
    with ExitStack() as held:
        held.callback(shutil.rmtree, folder, ignore_errors=True)
        if user:
            os.chown(folder, user["user"], user["group"])
        with tempfile.NamedTemporaryFile("w", dir=folder) as secret:
            secret.write(PASSWORD)
            secret.flush()
            os.chmod(secret.name, 0o644)
            initdb = [_binary("initdb"), "-D", str(folder / "data"), "-U", _USER, "--auth=scram-sha-256"]
            options = ["--pwfile", secret.name, "--encoding=UTF8", "--locale=C", "--no-sync"]
            if megabytes is not None:
                for name, size in zip(("data", "wal"), megabytes, strict=True):
                    disk = held.enter_context(disks.small(folder / name, size))
                    disk.chmod(0o700)
                    if user:
                        os.chown(disk, user["user"], user["group"])
                options += [f"--waldir={folder / 'wal'}", "--wal-segsize=1"]
            subprocess.run([*initdb, *options], check=True, capture_output=True, cwd=folder, **user)
        chosen = {**_SETTINGS, **({} if durable else _HURRIED), **(_SMALL_LOG if megabytes else {}), **(settings or {})}
        if certificate is not None:
            chosen |= {"ssl": "on", **_given(certificate, folder, user)}
        server = Server(folder, _free_port(), chosen)
        held.callback(server.stop)
        server.start()
        yield server


def _given(certificate: Path, folder: Path, user: dict[str, Any]) -> dict[str, str]:
    """Settings for copies that nobody but the server can read, as it wants them."""
    settings = {"ssl_cert_file": folder / "tls.crt", "ssl_key_file": folder / "tls.key"}
    for path in settings.values():
        shutil.copy(certificate / path.name, path)
        path.chmod(0o600)
        if user:
            os.chown(path, user["user"], user["group"])
    return {name: str(path) for name, path in settings.items()}


def _binary(name: str) -> str:
    """A program of PostgreSQL's. Debian does not put the server's in the path."""
    if found := shutil.which(name):
        return found
    versions = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), key=lambda path: float(path.parts[-3]))
    if not versions:
        raise AssertionError(f"{name} is not installed: install a PostgreSQL server, or put its programs in the path")
    return str(versions[-1])


def _unprivileged() -> dict[str, Any]:
    """Whom to run the server as: it refuses to run as root."""
    if os.getuid():
        return {}
    entry = pwd.getpwnam("nobody")
    return {"user": entry.pw_uid, "group": entry.pw_gid}


def _free_port() -> int:
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _is_installed() -> bool:
    try:
        return bool(_binary("postgres"))
    except AssertionError:
        return False


# Of tests that start a server of their own though the others run on SQLite.
needed = pytest.mark.skipif(not _is_installed(), reason="needs a PostgreSQL server that is installed")
