"""The HTTP server: how it bounds what clients take, and how it stops."""

from __future__ import annotations

import asyncio
import socket
import ssl
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import pytest
import pytest_asyncio
from starlette.responses import PlainTextResponse
from starlette.types import Receive, Scope, Send
from structlog.testing import capture_logs

from chassis import web
from chassis.web import WebServer
from tests.certificates import Authority
from tests.http import Connection, ask, connected
from tests.people import until

# More than the buffers of the system between two sockets take.
LARGE = b"x" * (32 * 1024 * 1024)
THREADS = asyncio.to_thread


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers with a word; with much, at once or a piece at a time; or not at all."""
    match scope["path"]:
        case "/large":
            await PlainTextResponse(LARGE)(scope, receive, send)
        case "/pieces":
            length = str(len(LARGE)).encode()
            await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", length)]})
            for begin in range(0, len(LARGE), 65536):
                await send({"type": "http.response.body", "body": LARGE[begin : begin + 65536], "more_body": True})
            await send({"type": "http.response.body"})
        case "/defect":
            raise ValueError("a secret of the code")
        case _:
            await PlainTextResponse("here")(scope, receive, send)


@asynccontextmanager
async def listening(address: str = "127.0.0.1:0", certificate: Path | None = None) -> AsyncIterator[WebServer]:
    """A server.

    Args:
        certificate: The folder of one, with which it is to encrypt.
    """
    files = (None, None) if certificate is None else (certificate / "tls.crt", certificate / "tls.key")
    server = WebServer(app, address, certificate=files[0], key=files[1])
    server.start()
    try:
        yield server
    finally:
        await server.stop(0)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def server() -> AsyncIterator[WebServer]:
    async with listening() as started:
        yield started


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    return Authority().issue(tmp_path / "tls", "images.example")


def is_at_work(server: WebServer) -> bool:
    return f"web {server.address}" in {thread.name for thread in threading.enumerate()}


def ended(connection: Connection) -> bool:
    """Whether the server ends a connection before the whole answer was there."""
    try:
        connection.answer()
    except EOFError:
        return True
    return False


@contextmanager
def connected_from(source: str, address: str) -> Iterator[Connection]:
    """A connection to host:port from another address of this machine."""
    host, _, port = address.rpartition(":")
    with socket.create_connection((host.strip("[]"), int(port)), 30, (source, 0)) as made:
        yield Connection(made)


async def until_answered(address: str) -> None:
    """Wait until the server has noticed that a place is free."""
    async with asyncio.timeout(10):
        while True:
            with connected(address) as again:
                again.send("/")
                if again.answer().status == 200:
                    return
            await asyncio.sleep(0.02)


async def test_it_answers_on_a_thread_of_its_own() -> None:
    """Whatever holds up the event loop of the calls does not hold it up."""
    async with listening() as server:
        # On this loop: nothing else runs here meanwhile.
        assert ask(server.address, "/").body == b"here"
        assert is_at_work(server)
    assert not is_at_work(server)


async def test_a_port_is_taken_before_it_is_served() -> None:
    server = WebServer(app, "127.0.0.1:0")
    assert not server.address.endswith(":0")
    with pytest.raises(OSError, match="in use"):
        WebServer(app, server.address)
    await server.stop(0)
    await WebServer(app, server.address).stop(0)


async def test_a_port_can_be_served_again_at_once_although_clients_were_connected() -> None:
    async with listening() as server:
        with connected(server.address) as connection:
            connection.ask("/")
            # The server ends the connection first, whose port then lingers on its side.
            await server.stop(0)
            assert connection.has_ended()
    async with listening(server.address):
        assert ask(server.address, "/").status == 200


async def test_servers_of_one_suite_share_a_port() -> None:
    with web.hold_port("127.0.0.1:0") as held:
        address = f"127.0.0.1:{held.getsockname()[1]}"
        servers = [WebServer(app, address, shares_port=True) for _ in range(2)]
        for server in servers:
            server.start()
        assert {ask(address, "/").status for _ in range(20)} == {200}
        await servers[0].stop(0)
        assert {ask(address, "/").status for _ in range(20)} == {200}
        await servers[1].stop(0)


async def test_a_request_that_does_not_come_to_its_end_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web, "_LONGEST_REQUEST_SECONDS", 0.3)

    def drip(connection: Connection) -> None:
        """Send a header for as long as somebody listens."""
        connection.socket.settimeout(0.02)
        for _ in range(500):
            try:
                connection.socket.sendall(b"a")
                if not connection.socket.recv(1):
                    return
            except TimeoutError:
                pass
            except (ConnectionResetError, BrokenPipeError):
                return
        raise AssertionError("nobody gave up")

    async with listening() as server:
        with connected(server.address) as first, connected(server.address) as later, connected(server.address) as idle:
            first.socket.sendall(b"GET / HTTP/1.1\r\nX: ")
            assert (await THREADS(later.ask, "/")).status == 200
            later.socket.sendall(b"GET / HTTP/1.1\r\nX: ")
            await asyncio.gather(THREADS(drip, first), THREADS(drip, later))
            assert await THREADS(idle.has_ended)


async def test_an_answer_that_is_not_taken_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web, "_LONGEST_PIECE_SECONDS", 0.3)
    async with listening() as server:
        for path in ("/pieces", "/large"):
            with connected(server.address) as connection:
                connection.send(path)
                await asyncio.sleep(0.6)
                assert await THREADS(ended, connection)


async def test_who_takes_an_answer_slowly_gets_all_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Although the next request does not come in its time."""
    monkeypatch.setattr(web, "_LONGEST_REQUEST_SECONDS", 0.2)
    monkeypatch.setattr(web, "_KEEP_ALIVE_SECONDS", 0)
    async with listening() as server:
        for path in ("/pieces", "/large"):
            with connected(server.address) as connection:
                connection.send(path)
                await asyncio.sleep(0.6)
                assert (await THREADS(connection.answer)).body == LARGE


async def test_who_takes_an_answer_steadily_has_as_long_as_it_takes(
    monkeypatch: pytest.MonkeyPatch, certificate: Path
) -> None:
    monkeypatch.setattr(web, "_LONGEST_PIECE_SECONDS", 1.2)
    trusting = ssl.create_default_context(cafile=certificate / "ca.crt")

    def seconds_to_take(connection: Connection, pause: float) -> float:
        connection.send("/pieces")
        begin = time.monotonic()
        assert connection.answer(pause=pause).body == LARGE
        return time.monotonic() - begin

    async with listening() as plain, listening(certificate=certificate) as encrypting:
        with (
            connected(plain.address) as one,
            connected(encrypting.address, trusting, "images.example") as other,
        ):
            # What is encrypted comes in quarters.
            taken = await asyncio.gather(THREADS(seconds_to_take, one, 0.005), THREADS(seconds_to_take, other, 0.00125))

    assert min(taken) > 2


async def test_connections_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web, "_MOST_CONNECTIONS", 2)
    async with listening() as server:
        with connected(server.address) as first:
            with connected(server.address) as second:
                assert [first.ask("/").status, second.ask("/").status] == [200, 200]
                with connected(server.address) as third:
                    refused = third.answer()
                    assert third.has_ended()
                assert (refused.status, refused.headers["connection"]) == (503, "close")
                assert refused.body
                # Those that are there notice nothing.
                assert [first.ask("/").status, second.ask("/").status] == [200, 200]
            await until_answered(server.address)


async def test_one_address_does_not_take_all_places(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web, "_MOST_OF_ONE_PEER", 2)
    async with listening() as server:
        with connected(server.address) as first, connected(server.address) as second:
            assert [first.ask("/").status, second.ask("/").status] == [200, 200]
            with connected(server.address) as third:
                refused = third.answer()
                assert third.has_ended()
            assert (refused.status, refused.headers["connection"]) == (503, "close")
            assert b"your address" in refused.body
            with connected_from("127.0.0.2", server.address) as other:
                assert other.ask("/").status == 200
            assert [first.ask("/").status, second.ask("/").status] == [200, 200]
        await until_answered(server.address)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("192.0.2.1", "192.0.2.1", True),
        ("192.0.2.1", "192.0.2.2", False),
        ("192.0.2.1", "::ffff:192.0.2.1", True),
        ("::ffff:192.0.2.1", "::ffff:192.0.2.2", False),
        ("2001:db8:0:1::1", "2001:db8:0:1:ffff::2", True),
        ("2001:db8:0:1::1", "2001:db8:0:2::1", False),
        ("fe80::1%lo", "fe80::2%lo", True),
    ],
)
def test_a_client_of_ipv6_has_many_addresses(one: str, other: str, same: bool) -> None:
    assert (web._peer(one) == web._peer(other)) is same


async def test_who_does_not_begin_to_encrypt_has_a_place_all_the_same_and_not_for_long(
    monkeypatch: pytest.MonkeyPatch, certificate: Path
) -> None:
    monkeypatch.setattr(web, "_MOST_CONNECTIONS", 2)
    monkeypatch.setattr(web, "_LONGEST_HANDSHAKE_SECONDS", 1.0)
    trusting = ssl.create_default_context(cafile=certificate / "ca.crt")

    def ask_encrypted(address: str) -> bytes | None:
        """Answers None if there is no place."""
        try:
            with connected(address, trusting, "images.example") as connection:
                return connection.ask("/").body
        except (ConnectionError, ssl.SSLError):
            return None

    async with listening(certificate=certificate) as server:
        with connected(server.address) as silent, connected(server.address) as slow:
            slow.socket.sendall(b"\x16\x03\x01")
            assert await THREADS(ask_encrypted, server.address) is None
            async with asyncio.timeout(10):
                assert await THREADS(silent.has_ended)
                assert await THREADS(slow.has_ended)
            await until(lambda: THREADS(ask_encrypted, server.address), b"here")


async def test_a_stop_lets_nobody_in_who_has_not_begun_to_encrypt(
    monkeypatch: pytest.MonkeyPatch, certificate: Path
) -> None:
    monkeypatch.setattr(web, "_LONGEST_HANDSHAKE_SECONDS", 60.0)
    trusting = ssl.create_default_context(cafile=certificate / "ca.crt")
    async with listening(certificate=certificate) as server:
        with (
            connected(server.address) as silent,
            connected(server.address, trusting, "images.example") as busy,
        ):
            busy.send("/pieces")
            busy.put_back(busy.socket.recv(1))
            stopping = asyncio.create_task(server.stop(30))
            async with asyncio.timeout(10):
                assert await THREADS(silent.has_ended)
            assert not stopping.done()
            assert (await THREADS(busy.answer)).body == LARGE
        await stopping


@pytest.mark.parametrize(
    "sent",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET /\0 HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"x" * 9000,
    ],
    ids=["TLS", "a word", "no host", "NUL", "two lengths", "a large head"],
)
async def test_what_is_no_request_is_refused(sent: bytes, server: WebServer) -> None:
    with connected(server.address) as connection:
        connection.socket.sendall(sent)
        refused = connection.answer()
        assert connection.has_ended()

    assert refused.status == 400
    assert refused.body
    assert ask(server.address, "/").status == 200


async def test_what_goes_wrong_is_not_kept_and_no_answer_can_do_anything_or_tells_what_serves_it(
    server: WebServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    with connected(server.address) as connection:
        connection.socket.sendall(b"GET\r\n\r\n")
        bad = connection.answer()
    answers = [ask(server.address, "/"), ask(server.address, "/defect"), bad]
    monkeypatch.setattr(web, "_MOST_CONNECTIONS", 0)
    with connected(server.address) as connection:
        answers.append(connection.answer())

    assert [answer.status for answer in answers] == [200, 500, 400, 503]
    assert [answer.headers.get("cache-control") for answer in answers] == [None, "no-store", "no-store", "no-store"]
    for answer in answers:
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["content-security-policy"] == "default-src 'none'; sandbox"
        assert not {"server", "x-powered-by"} & answer.headers.keys()
        assert b"uvicorn" not in answer.body


async def test_a_defect_is_logged_and_neither_its_text_nor_the_address_is_told(server: WebServer) -> None:
    """An address may be all that is needed to fetch what is there."""
    with capture_logs() as logs:
        answer = ask(server.address, "/defect")

    assert answer.status == 500
    assert b"secret" not in answer.body
    assert [(line["event"], line["failure"], line["errno"]) for line in logs] == [
        ("request failed", "ValueError", None)
    ]
    assert "secret" not in str(logs)
    assert "/defect" not in str(logs)


async def test_a_stop_ends_what_is_idle_and_lets_what_is_under_way_end() -> None:
    async with listening() as server:
        with connected(server.address) as idle, connected(server.address) as busy:
            assert idle.ask("/").status == 200
            busy.send("/pieces")
            busy.put_back(busy.socket.recv(1))
            stopping = asyncio.create_task(server.stop(30))
            assert await THREADS(idle.has_ended)
            with pytest.raises(ConnectionRefusedError):
                ask(server.address, "/")
            assert not stopping.done()
            assert (await THREADS(busy.answer, pause=0.001)).body == LARGE
            await stopping


async def test_a_stop_waits_for_no_longer_than_it_may() -> None:
    async with listening() as server:
        with connected(server.address) as busy:
            busy.send("/pieces")
            assert busy.socket.recv(1) == b"H"
            async with asyncio.timeout(10):
                await server.stop(1)
            assert not is_at_work(server)
