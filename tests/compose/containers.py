"""The suite in containers, in the two forms that it is composed in."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.people import until

PROJECT = Path(__file__).parents[2]
PARTS = ("users", "posts", "social", "gateway")
_HEALTHY_WITHIN_SECONDS = 300.0
# As in other tests: passwords are cheap, and who shares the processors with other tests may take longer.
_SETTINGS = {
    "INSTA_BCRYPT_COST": "4",
    "INSTA_LOGIN_THROTTLE": "false",
    "INSTA_MUTATIONS_PER_MINUTE": "0",
    "INSTA_MAX_WAIT_MILLISECONDS": "10000",
}
# Of engine and kernel: where a container asks for names.
_NAMES_ADDRESS = "0B00007F"
_LISTENS, _RECEIVES = "0A", "07"


@dataclass(frozen=True)
class Form:
    """How the suite is composed.

    Attributes:
        files: Options of compose. None: what it reads by itself.
        published: Which ports of which services can be reached from this machine.
        listening: On which ports each service can be reached by other containers; of all that go on running.
        ended: The services that have done their work.
        replicas: How many containers each part has.
    """

    files: tuple[str, ...]
    published: dict[str, set[int]]
    listening: dict[str, set[int]]
    ended: set[str]
    replicas: int


_METRICS = 9090
_LISTENING = {"users": {50052, _METRICS}, "social": {50054, _METRICS}, "gateway": {50051, _METRICS}}
FORMS = {
    "plain": Form(
        files=(),
        published={"gateway": {50051}, "posts": {8080}},
        listening={**_LISTENING, "posts": {50053, _METRICS, 8080}},
        ended={"tls"},
        replicas=1,
    ),
    "scale": Form(
        files=("--file", "docker-compose.yml", "--file", "docker-compose.scale.yml"),
        published={"entrance": {50051, 8080}},
        listening={
            **_LISTENING,
            "posts": {50053, _METRICS},
            "database": {5432},
            # The other is for parts of its own, and only posts and the entrance are on its network.
            "s3": {8080, 18080},
            "entrance": {50051, 8080},
        },
        ended={"tls", "database-tls"},
        replicas=2,
    ),
}


@dataclass(frozen=True)
class Container:
    """What the engine knows of a container at a moment.

    Attributes:
        service: Whose it is.
        known: All else, as `docker inspect` tells it.
    """

    service: str
    known: dict[str, Any]

    @property
    def id(self) -> str:
        return str(self.known["Id"])

    @property
    def state(self) -> dict[str, Any]:
        return dict(self.known["State"])

    @property
    def is_healthy(self) -> bool:
        """Whether it says so; of one that cannot say, whether it has done its work."""
        if "Health" not in self.state:
            return bool(self.state["Status"] == "exited" and self.state["ExitCode"] == 0)
        return bool(self.state["Health"]["Status"] == "healthy" and self.state["Running"])

    @property
    def published(self) -> dict[int, list[tuple[str, str]]]:
        """Host and port on this machine of those of its ports that have some."""
        ports = self.known["NetworkSettings"]["Ports"].items()
        return {
            int(name.partition("/")[0]): [(bound["HostIp"], bound["HostPort"]) for bound in published]
            for name, published in ports
            if published
        }


class Containers:
    """The services of a form under a project name of their own, published on ports that are free.

    Args:
        command: Docker compose: the plugin, or the program that it came from.

    Attributes:
        address: host:port of the gateway.
        images: host:port of images.
        network: The name of the network that all are on.
    """

    def __init__(self, command: list[str], name: str) -> None:
        self.form = FORMS[name]
        self.address, self.images = _free_addresses(2)
        self._project = f"insta-test-{name}-{os.getpid()}"
        self.network = f"{self._project}_default"
        self._command = [*command, *self.form.files, "--project-name", self._project]
        given = {name: value for name, value in os.environ.items() if not name.startswith("INSTA_")}
        self._environment = {
            **given,
            **_SETTINGS,
            "INSTA_LISTEN": self.address,
            "INSTA_MEDIA_LISTEN": self.images,
            "INSTA_MEDIA_PUBLIC_URL": f"http://{self.images}/media",
        }

    def compose(self, *arguments: str, stdin: str = "") -> str:
        """Run a command of compose. Returns what it printed; it must succeed."""
        return self._run(*self._command, *arguments, stdin=stdin)

    def up(self) -> None:
        """Start what does not run, and wait until all are healthy."""
        self.compose("up", "--detach")
        deadline = time.monotonic() + _HEALTHY_WITHIN_SECONDS
        while ill := [one for one in self.all() if not one.is_healthy]:
            told = self.compose("logs", "--tail", "50")
            assert time.monotonic() < deadline, f"{[(one.service, one.state) for one in ill]}:\n{told}"
            time.sleep(0.5)

    def all(self) -> list[Container]:
        """Every container, also those that have ended."""
        label = f"label=com.docker.compose.project={self._project}"
        ids = self._run("docker", "ps", "--all", "--quiet", "--filter", label).split()
        known = json.loads(self._run("docker", "inspect", *ids))
        return [Container(one["Config"]["Labels"]["com.docker.compose.service"], one) for one in known]

    def of(self, service: str) -> list[Container]:
        """The containers of a service."""
        return [one for one in self.all() if one.service == service]

    def run_in(self, container: Container, *command: str) -> str:
        """Run a command in a container. Returns what it printed; it must succeed."""
        return self._run("docker", "exec", container.id, *command)

    def python_in(self, service: str, script: str, *arguments: str) -> str:
        """Run Python in a container of a part. Returns what it printed."""
        return self.compose("exec", "-T", service, "python", "-c", script, *arguments).strip()

    async def kill(self, *containers: Container) -> None:
        """Let containers crash: the first process of each is killed, as the kernel does where memory is short.

        `docker kill` would count as a stop that is meant. From within a container nobody can kill its first process;
        root can, from among the processes of the machine.
        """
        pids = [str(one.state["Pid"]) for one in containers]
        script = ("--entrypoint=sh", "insta", "-c", 'kill -KILL "$@"', "sh", *pids)
        # Calls go on meanwhile.
        await asyncio.to_thread(self._run, "docker", "run", "--rm", "--pid=host", "--network=none", "--user=0", *script)

    async def back(self, container: Container) -> None:
        """Wait until the engine has started a container once more that was killed."""

        async def restarted() -> bool:
            (known,) = json.loads(await asyncio.to_thread(self._run, "docker", "inspect", container.id))
            now = Container(container.service, known)
            return bool(known["RestartCount"] > container.known["RestartCount"] and now.state["Running"])

        await until(restarted, seconds=_HEALTHY_WITHIN_SECONDS)

    def listening(self, container: Container) -> set[int]:
        """The ports, of TCP and UDP, on which a container can be reached from another."""
        tables = self.run_in(container, "cat", *(f"/proc/net/{kind}" for kind in ("tcp", "tcp6", "udp", "udp6")))
        rows = [row.split() for row in tables.splitlines() if ":" in row.split()[1]]
        bound = [local.split(":") for _, local, _, state, *_ in rows if state in (_LISTENS, _RECEIVES)]
        return {int(port, 16) for address, port in bound if address != _NAMES_ADDRESS and not _is_loopback(address)}

    def _run(self, *command: str, stdin: str = "") -> str:
        done = subprocess.run(
            command, cwd=PROJECT, env=self._environment, input=stdin, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{' '.join(command)}:\n{done.stdout}\n{done.stderr}"
        return done.stdout


def _free_addresses(count: int) -> list[str]:
    with ExitStack() as bound:
        sockets = [bound.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [f"127.0.0.1:{each.getsockname()[1]}" for each in sockets]


def _is_loopback(address: str) -> bool:
    """Whether an address, as the kernel writes it, is of the container itself: in each word the last byte is first."""
    return address in ("0100007F", "00000000000000000000000001000000", "0000000000000000FFFF00000100007F")
