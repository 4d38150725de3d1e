"""The suite in containers, as docker-compose.yml runs it, and docker-compose.scale.yml."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import urllib.parse
from collections import Counter
from functools import partial

import pytest

from insta.gateway.v1 import media_pb2, posts_pb2
from tests.compose.containers import PARTS, PROJECT, Containers
from tests.http import ask
from tests.people import People, until
from tests.suite.killing import there

# Images are built, and all of the end-to-end tests run within one of these.
pytestmark = pytest.mark.timeout(3600)

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


def test_the_end_to_end_tests_pass(containers: Containers) -> None:
    # One after the other: some tests see what everybody does.
    tested = subprocess.run(
        [sys.executable, "-m", "pytest", "tests/end_to_end", "-m", "not inside"],
        cwd=PROJECT,
        env={**os.environ, "INSTA_TEST_ADDRESS": containers.address},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )

    assert tested.returncode == 0, tested.stdout


class Kept:
    """What was answered, and has to be there whatever happens."""

    def __init__(self) -> None:
        self._username = ""
        self._posts: list[posts_pb2.Post] = []
        self._images: list[media_pb2.Media] = []

    async def add(self, containers: Containers) -> None:
        """One more of everything."""
        people = People(containers.address)
        person = await (people.log_in(self._username) if self._username else people.join())
        self._username = person.username
        image = await person.upload()
        post = await person.post(f"Kept {len(self._posts)}", media_ids=[image.id])
        await person.like(post)
        await person.comment(post)
        self._posts.append(await person.see(post))
        self._images.append(image)
        await people.channel.close()

    async def check(self, containers: Containers) -> None:
        """All of it is there, once the suite answers."""
        people = People(containers.address)
        person = await there(lambda: people.log_in(self._username))
        for post in self._posts:
            assert await there(partial(person.see, post)) == post
        for variant in (variant for image in self._images for variant in image.variants):
            await until(partial(_size_served, containers, variant), variant.size, seconds=120)
        await people.channel.close()


async def _size_served(containers: Containers, variant: media_pb2.Variant) -> int:
    """Of an image over HTTP, 0 if it is not."""
    try:
        answer = ask(containers.images, urllib.parse.urlsplit(variant.url).path)
    except (OSError, EOFError):
        return 0
    assert answer.status == 200 or answer.status >= 500, answer
    return len(answer.body) if answer.status == 200 else 0


async def test_all_drain_when_they_are_stopped_and_data_outlive_the_containers(containers: Containers) -> None:
    kept = Kept()
    await kept.add(containers)
    first = containers.all()

    containers.compose("stop")
    exit_codes = {(one.service, one.state["ExitCode"]) for one in containers.all()}
    containers.compose("down")
    containers.up()

    assert exit_codes == {(service, 0) for service in {*containers.form.listening, *containers.form.ended}}
    assert not {one.id for one in first} & {one.id for one in containers.all()}
    await kept.check(containers)


async def test_what_crashes_comes_back_with_all_that_was_answered(containers: Containers) -> None:
    kept = Kept()
    await kept.add(containers)
    for service in containers.form.listening:
        crashed = containers.of(service)

        await containers.kill(*crashed)

        for one in crashed:
            await containers.back(one)
        await kept.check(containers)
        await kept.add(containers)
    containers.up()


def test_only_gateway_and_images_can_be_reached_and_only_from_this_machine(containers: Containers) -> None:
    published = {one.service: set(one.published) for one in containers.all() if one.published}
    addresses = {":".join(address) for one in containers.all() for bound in one.published.values() for address in bound}

    assert published == containers.form.published
    assert addresses == {containers.address, containers.images}
    # Nor is anything behind these ports at the address that this machine has on the containers' network.
    (machine,) = {
        one.known["NetworkSettings"]["Networks"][containers.network]["Gateway"] for one in containers.of("users")
    }
    for address in addresses:
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((machine, int(address.rpartition(":")[2])), timeout=10).close()


def test_containers_listen_on_the_ports_that_they_serve_and_on_no_other(containers: Containers) -> None:
    running = [one for one in containers.all() if one.state["Running"]]

    assert [(one.service, containers.listening(one)) for one in running] == [
        (one.service, containers.form.listening[one.service]) for one in running
    ]
    assert Counter(one.service for one in running) == {
        service: containers.form.replicas if service in PARTS else 1 for service in containers.form.listening
    }


def test_what_runs_is_confined(containers: Containers) -> None:
    for one in containers.all():
        host = one.known["HostConfig"]
        assert (host["ReadonlyRootfs"], host["CapDrop"]) == (True, ["ALL"]), one.service
        assert host["SecurityOpt"] == ["no-new-privileges:true"], one.service
        assert one.known["Config"]["User"] == "10001:10001", one.service


async def test_images_are_served(containers: Containers) -> None:
    people = People(containers.address)
    image = await (await people.join()).upload()
    await people.channel.close()

    for variant in image.variants:
        answer = ask(containers.images, urllib.parse.urlsplit(variant.url).path)
        assert (answer.status, len(answer.body)) == (200, variant.size)
        assert answer.headers["content-type"] == variant.content_type
        assert answer.headers["cache-control"] == "public, max-age=31536000, immutable"
        assert answer.headers["content-security-policy"] == "default-src 'none'; sandbox"
    for path in (f"/media/{'0' * 32}/320.webp", "/media", "/"):
        answer = ask(containers.images, path)
        assert (answer.status, answer.body) == (404, b"There is no such image.\n")
        assert answer.headers["cache-control"] == "no-store"


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
    listing = 'cd / && test ! -e /etc/insta || find /etc/insta -name "*.key" -o -name credentials'
    running = [one for one in containers.all() if one.state["Running"]]

    seen = [(one.service, set(containers.run_in(one, "sh", "-c", listing).split())) for one in running]

    of_s3 = {"/etc/insta/s3/credentials"} if "s3" in dict(seen) else set()
    for service, keys in seen:
        own = {f"/etc/insta/tls/{service}/tls.key"} if service in (*PARTS, "database") else set()
        assert keys == own | (of_s3 if service in ("posts", "s3") else set()), service
    assert {service for service, _ in seen} >= set(PARTS)
