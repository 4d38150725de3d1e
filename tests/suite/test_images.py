"""The listener of images in each way to run a suite: with several processes, with a certificate, and when it stops."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import ssl
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.certificates import Authority
from tests.http import ask, connected
from tests.people import until
from tests.running import MODES, RunningSuite, environment, running
from tests.suite.killing import children, process_of

NAME = "images.example"
FOLDER = "0123456789abcdef" * 2
# More than the buffers of the system between two sockets take.
LARGE = os.urandom(1024) * 16 * 1024


def with_image(data: Path, content: bytes = b"an image") -> Path:
    folder = data / "media" / FOLDER
    folder.mkdir(parents=True)
    (folder / "320.webp").write_bytes(content)
    return data


def address(suite: RunningSuite) -> str:
    return urlsplit(suite.images_url).netloc


def path(suite: RunningSuite) -> str:
    return f"{urlsplit(suite.images_url).path}/{FOLDER}/320.webp"


async def listeners(suite: RunningSuite) -> int:
    """How many sockets listen on the port of images."""
    port = int(address(suite).rpartition(":")[2])
    table = await asyncio.to_thread(Path("/proc/net/tcp").read_text)
    lines = [line.split() for line in table.splitlines()[1:]]
    return sum(local.endswith(f":{port:04X}") and state == "0A" for _, local, _, state, *_ in lines)


def is_served(suite: RunningSuite) -> bool:
    return ask(address(suite), path(suite)).body == b"an image"


async def test_a_worker_that_is_killed_serves_images_again_and_the_other_meanwhile(tmp_path: Path) -> None:
    with running("workers", with_image(tmp_path), superuser=False) as suite:
        killed = min(children(suite))
        os.kill(killed, signal.SIGKILL)

        async def is_gone() -> bool:
            return killed not in children(suite)

        async def listeners_while_images_are_served() -> int:
            assert is_served(suite)
            return await listeners(suite)

        await until(is_gone)
        await until(listeners_while_images_are_served, 2)
        assert {is_served(suite) for _ in range(10)} == {True}


async def test_images_stay_where_they_are_when_their_process_is_started_again(tmp_path: Path) -> None:
    """URLs of them are out in the world. So is a client, who lets the port linger."""
    with running("apart", with_image(tmp_path), superuser=False) as suite, ExitStack() as clients:
        idle = clients.enter_context(connected(address(suite)))
        assert idle.ask(path(suite)).status == 200
        os.kill(process_of(suite, "posts"), signal.SIGTERM)
        assert await asyncio.to_thread(idle.has_ended)
        await until(lambda: listeners(suite), 1)

        assert is_served(suite)


@pytest.mark.parametrize("mode", ["apart", pytest.param("workers", marks=pytest.mark.soak)])
async def test_images_are_served_over_tls_with_the_certificate_of_the_gateway(mode: str, tmp_path: Path) -> None:
    certificate = Authority().issue(tmp_path / "tls", NAME)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    public_url = f"https://127.0.0.1:{port}/media"
    settings = {
        "INSTA_TLS_CERTIFICATE": str(certificate / "tls.crt"),
        "INSTA_TLS_KEY": str(certificate / "tls.key"),
        "INSTA_MEDIA_LISTEN": f"0.0.0.0:{port}",
        "INSTA_MEDIA_PUBLIC_URL": public_url,
    }
    trusting = ssl.create_default_context(cafile=certificate / "ca.crt")
    with running(mode, with_image(tmp_path / "var"), superuser=False, **settings) as suite:
        assert suite.images_url == public_url
        there = address(suite)
        with connected(there, trusting, NAME) as connection:
            assert connection.ask(path(suite)).body == b"an image"
        with pytest.raises(ssl.SSLCertVerificationError), connected(there, trusting, "other.example"):
            pass
        with connected(there) as plaintext, pytest.raises(EOFError):
            plaintext.ask(path(suite))
        assert suite.log is not None
        assert "Traceback" not in suite.log.read_text()


@pytest.mark.parametrize("mode", MODES)
async def test_images_are_served_where_a_suite_says_and_one_that_is_under_way_comes_to_its_end_when_it_stops(
    mode: str, tmp_path: Path
) -> None:
    with running(mode, with_image(tmp_path, LARGE), superuser=False) as suite, ExitStack() as clients:
        assert urlsplit(suite.images_url).hostname == "127.0.0.1"
        assert await listeners(suite) == {"together": 1, "workers": 2, "apart": 1}[mode]
        idle, busy = (clients.enter_context(connected(address(suite))) for _ in range(2))
        assert idle.ask(path(suite), "HEAD").status == 200
        busy.send(path(suite))
        first = busy.socket.recv(1)
        assert suite.process is not None
        suite.process.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(idle.has_ended)
        busy.put_back(first)

        assert (await asyncio.to_thread(busy.answer, pause=0.003)).body == LARGE
        assert await asyncio.to_thread(suite.process.wait, 20) == 0


async def test_who_takes_an_image_slowly_does_not_keep_a_suite_from_stopping(tmp_path: Path) -> None:
    with (
        running("together", with_image(tmp_path, LARGE), superuser=False, INSTA_DRAIN_SECONDS="1") as suite,
        connected(address(suite)) as busy,
    ):
        busy.send(path(suite))
        assert busy.socket.recv(1) == b"H"
        assert suite.process is not None
        suite.process.send_signal(signal.SIGTERM)

        assert await asyncio.to_thread(suite.process.wait, 10) == 0


@pytest.mark.parametrize("host", ["0.0.0.0", "[::]"])
def test_who_listens_everywhere_has_to_say_where_clients_find_images(host: str, tmp_path: Path) -> None:
    given = environment(tmp_path, INSTA_MEDIA_LISTEN=f"{host}:0", INSTA_INSECURE_PLAINTEXT="true")
    refused = subprocess.run(
        [sys.executable, "-m", "suite", "up"], env=given, capture_output=True, text=True, check=False
    )

    assert refused.returncode == 1
    assert "INSTA_MEDIA_PUBLIC_URL=" in refused.stderr
