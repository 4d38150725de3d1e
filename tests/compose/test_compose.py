"""The suite in containers, as docker-compose.yml runs it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.http import ask
from tests.people import People
from tests.running import PASSWORD, SUPERUSER

# An image is built, and all of the end-to-end tests run within one of these.
pytestmark = pytest.mark.timeout(3600)

PROJECT = Path(__file__).parents[2]
_HEALTHY_WITHIN_SECONDS = 120.0
ANY = "127.0.0.1:0"

# Within a container: the code that a call of the posts service ends with.
_ASK_POSTS = """
import os, pathlib, sys
import grpc
own = pathlib.Path(os.environ["INSTA_PEER_TLS"])
authority, key, certificate = ((own / name).read_bytes() for name in ("ca.crt", "tls.key", "tls.crt"))
credentials = {
    "no certificate": grpc.ssl_channel_credentials(authority),
    "certificate": grpc.ssl_channel_credentials(authority, key, certificate),
}
address = os.environ["INSTA_POSTS_ADDRESS"]
if sys.argv[1] == "plaintext":
    channel = grpc.insecure_channel(address)
else:
    channel = grpc.secure_channel(address, credentials[sys.argv[1]])
try:
    channel.unary_unary("/insta.posts.v1.PostService/GetPost")(b"", timeout=10)
except grpc.RpcError as error:
    print(error.code().name)
"""


class Containers:
    """The services of docker-compose.yml under a project name of their own, gateway and images on free ports.

    Args:
        command: Docker compose: the plugin, or the program that it came from.
    """

    def __init__(self, command: list[str]) -> None:
        self._name = f"insta-test-{os.getpid()}"
        self._command = [*command, "--project-name", self._name]
        given = {name: value for name, value in os.environ.items() if not name.startswith("INSTA_")}
        self._environment = {**given, "INSTA_LISTEN": ANY, "INSTA_MEDIA_LISTEN": ANY, "INSTA_BCRYPT_COST": "4"}

    def compose(self, *arguments: str, stdin: str = "") -> str:
        """Run a command of compose. Returns what it printed; it must succeed."""
        return self._run(*self._command, *arguments, stdin=stdin)

    def up(self) -> None:
        """Start what does not run, and wait until the gateway is healthy. It starts last."""
        self.compose("up", "--detach")
        deadline = time.monotonic() + _HEALTHY_WITHIN_SECONDS
        while (health := self.all()["gateway"]["State"]["Health"]["Status"]) != "healthy":
            assert time.monotonic() < deadline, f"the gateway is {health}:\n{self.compose('logs', '--tail', '50')}"
            time.sleep(0.2)

    def address(self) -> str:
        """host:port of the gateway. Another one after each start."""
        return self.compose("port", "gateway", "50051").strip()

    def images(self) -> str:
        """host:port of images. Another one after each start."""
        return self.compose("port", "posts", "8080").strip()

    def all(self) -> dict[str, dict[str, Any]]:
        """What the engine knows of each container, by the name of its service."""
        label = f"label=com.docker.compose.project={self._name}"
        ids = self._run("docker", "ps", "--all", "--quiet", "--filter", label).split()
        known = json.loads(self._run("docker", "inspect", *ids))
        return {one["Config"]["Labels"]["com.docker.compose.service"]: one for one in known}

    def _run(self, *command: str, stdin: str = "") -> str:
        done = subprocess.run(
            command, cwd=PROJECT, env=self._environment, input=stdin, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{' '.join(command)}:\n{done.stdout}\n{done.stderr}"
        return done.stdout


@pytest.fixture(scope="module")
def containers() -> Iterator[Containers]:
    """The suite in containers, with a superuser."""
    has_plugin = subprocess.run(["docker", "compose", "version"], capture_output=True, check=False).returncode == 0
    made = Containers(["docker", "compose"] if has_plugin else ["docker-compose"])
    try:
        made.compose("build")
        made.up()
        options = ("--username", SUPERUSER, "--email", "boss@example.com", "--password-stdin")
        made.compose("exec", "-T", "users", "insta", "superuser", "create", *options, stdin=PASSWORD + "\n")
        yield made
    finally:
        made.compose("down", "--volumes")


def test_the_end_to_end_tests_pass(containers: Containers) -> None:
    # One after the other: some tests see what everybody does.
    tested = subprocess.run(
        [sys.executable, "-m", "pytest", "tests/end_to_end", "-m", "not inside"],
        cwd=PROJECT,
        env={**os.environ, "INSTA_TEST_ADDRESS": containers.address()},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )

    assert tested.returncode == 0, tested.stdout


async def test_data_outlive_the_containers(containers: Containers) -> None:
    people = People(containers.address())
    before = await people.join()
    post = await before.post("Kept")
    await people.channel.close()
    first = containers.all()

    containers.compose("down")
    containers.up()

    people = People(containers.address())
    after = await people.log_in(before.username)
    assert after.id == before.id
    assert await after.see(post) == post
    await people.channel.close()
    assert not {one["Id"] for one in first.values()} & {one["Id"] for one in containers.all().values()}


def test_every_part_drains_when_it_is_stopped(containers: Containers) -> None:
    containers.compose("stop")

    assert {name: one["State"]["ExitCode"] for name, one in containers.all().items()} == {
        "tls": 0, "users": 0, "posts": 0, "social": 0, "gateway": 0,
    }  # fmt: skip
    containers.up()


def test_only_gateway_and_images_can_be_reached_and_only_from_this_machine(containers: Containers) -> None:
    published = {
        name: [bound for ports in one["NetworkSettings"]["Ports"].values() for bound in ports or ()]
        for name, one in containers.all().items()
    }

    def at(address: str) -> list[dict[str, str]]:
        return [{"HostIp": "127.0.0.1", "HostPort": address.rpartition(":")[2]}]

    assert published == {
        "tls": [], "users": [], "posts": at(containers.images()), "social": [], "gateway": at(containers.address()),
    }  # fmt: skip


def test_images_are_served(containers: Containers) -> None:
    name = f"{'0123456789abcdef' * 2}/320.webp"
    put = 'mkdir -p "$(dirname "$1")" && printf image > "$1"'
    containers.compose("exec", "-T", "posts", "sh", "-c", put, "sh", f"/var/lib/insta/media/{name}")

    assert ask(containers.images(), f"/media/{name}").body == b"image"


@pytest.mark.parametrize(
    ("container", "how", "answer"),
    [
        ("gateway", "plaintext", "UNAVAILABLE"),
        ("gateway", "no certificate", "UNAVAILABLE"),
        ("gateway", "certificate", "UNAUTHENTICATED"),
        ("social", "certificate", "UNAUTHENTICATED"),
        ("users", "certificate", "PERMISSION_DENIED"),
    ],
)
def test_a_part_answers_only_those_whose_certificate_is_of_an_allowed_caller(
    container: str, how: str, answer: str, containers: Containers
) -> None:
    assert containers.compose("exec", "-T", container, "python", "-c", _ASK_POSTS, how).strip() == answer


def test_a_part_sees_no_key_but_its_own(containers: Containers) -> None:
    listing = 'cd / && find /etc/insta/tls -name "*.key"'

    seen = {
        part: containers.compose("exec", "-T", part, "sh", "-c", listing).split()
        for part in ("users", "posts", "social", "gateway")
    }

    assert seen == {part: [f"/etc/insta/tls/{part}/tls.key"] for part in seen}
