"""The HTTP server: how it bounds what clients take, and how it stops."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import pytest_asyncio
from starlette.responses import PlainTextResponse
from starlette.types import Receive, Scope, Send
from structlog.testing import capture_logs

from chassis import web
from chassis.web import WebServer
from tests.http import Connection, ask, connected

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
async def listening(address: str = "127.0.0.1:0") -> AsyncIterator[WebServer]:
    server = WebServer(app, address)
    server.start()
    try:
        yield server
    finally:
        await server.stop(0)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def server() -> AsyncIterator[WebServer]:
    async with listening() as started:
        yield started


def is_at_work(server: WebServer) -> bool:
    return f"web {server.address}" in {thread.name for thread in threading.enumerate()}


def ended(connection: Connection) -> bool:
    """Whether the server ends a connection before the whole answer was there."""
    try:
        connection.answer()
    except EOFError:
        return True
    return False


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
    monkeypatch.setattr(web, "_LONGEST_ANSWER_SECONDS", 0.3)
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
            async with asyncio.timeout(10):
                while True:
                    with connected(server.address) as again:
                        again.send("/")
                        if again.answer().status == 200:
                            break
                    await asyncio.sleep(0.02)


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


async def test_a_defect_is_logged_and_its_text_is_not_told(server: WebServer) -> None:
    with capture_logs() as logs:
        answer = ask(server.address, "/defect")

    assert answer.status == 500
    assert b"secret" not in answer.body
    assert [(line["event"], line["path"]) for line in logs] == [("request failed", "/defect")]


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
