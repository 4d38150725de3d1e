"""The benchmarks: what they measure is measured, and what they must not count is told. How fast it is says no test."""

from __future__ import annotations

import base64
import io
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from rich.console import Console

from benchmarks import calls, report
from benchmarks.data import Seed
from benchmarks.kinds import Kinds
from benchmarks.load import GRPC, HTTP, Load, Outcome, Running, http
from benchmarks.options import Options
from benchmarks.report import Goal, Part, judged
from insta.gateway.v1 import posts_pb2

# More calls at a time would wait for each other on a busy machine, and be refused.
BRIEFLY = Options(rounds=1, seconds=0.3, warm_up=0.1, at_most=4, pinned=False)
SEED = Seed(users=200, posts=300, follows=10)


def test_calls_are_measured_beside_a_bare_echo(tmp_path: Path) -> None:
    said = io.StringIO()
    console = Console(file=said, width=100)

    part = calls.run_briefly(BRIEFLY, console, SEED, tmp_path)
    figures = json.loads(report.save(part, {}, tmp_path).read_text())["calls"]
    report.show(part, console)

    measured = {(each["call"], each["side"]): each for each in figures["measured"]}
    assert measured.keys() == {("GetPost", "bare echo"), ("GetPost", "together"), ("LikePost", "together")}
    # A busy machine may refuse some calls.
    assert all({"OK"} <= set(each["codes"]) <= {"OK", "RESOURCE_EXHAUSTED"} for each in measured.values())
    assert all(each["per_second"][0] > 0 and each["cpu_microseconds"][0] > 0 for each in measured.values())
    assert figures["message_bytes"]["answer"] > len("d" * 120)
    (goal,) = figures["goals"]
    assert (goal["goal"]["what"], goal["goal"]["against"]) == ("GetPost composed", "bare echo")
    assert goal["value"] > 0
    assert "GetPost composed" in said.getvalue()


def test_a_wrong_answer_is_noticed() -> None:
    get_post = Kinds(SEED).all()[0]
    answer = base64.b64encode(posts_pb2.GetPostResponse().SerializeToString() or b"\n\0").decode()

    assert get_post.wrong(GRPC, [Outcome(0, 0.001, "OK", 0, answer)])


def test_a_missed_goal_is_told_as_missed_and_a_doubt_beside_it() -> None:
    said = io.StringIO()
    verdicts = [
        judged(Goal("reads", "others", 2, 3), [1.9, 1.0, 2.9]),
        judged(Goal("memory", "", 150, unit="MB", at_most=True), [140.0]),
        judged(Goal("writes", "others", 2, 3), [4.0], "they were 40.0% busy"),
    ]

    report.show(Part("some", "Some", verdicts), Console(file=said, width=100))

    assert [verdict.word for verdict in verdicts] == ["missed", "met", "uncounted"]
    assert "does not count: they were 40.0% busy" in said.getvalue()


def test_a_load_over_http_keeps_its_connections() -> None:
    with _counting() as (address, connections):
        asked = [http("GET /1"), http("POST /2", {"a": 1})]
        load = Load(address, asked, ["Token t"], seconds=20, at_once=2, protocol=HTTP, once=True, keep=1)
        outcomes = sorted(Running(load).outcomes(), key=lambda each: each.call)

    assert [(each.code, each.message) for each in outcomes] == [
        ("OK", b"GET /1 Token t "),
        ("404", b'POST /2 Token t {"a": 1}'),
    ]
    assert len(connections) == 2


@contextmanager
def _counting() -> Iterator[tuple[str, set[object]]]:
    """A server that answers with what it was asked, a GET in chunks, and its clients' addresses."""
    clients: set[object] = set()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _answer(self) -> bytes:
            clients.add(self.client_address)
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            return f"{self.command} {self.path} {self.headers['Authorization']} ".encode() + body

        def do_GET(self) -> None:
            answer = self._answer()
            self.send_response(200)
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            for part in (answer[:3], answer[3:]):
                self.wfile.write(f"{len(part):x}\r\n".encode() + part + b"\r\n")
            self.wfile.write(b"0\r\n\r\n")

        def do_POST(self) -> None:
            answer = self._answer()
            self.send_response(404)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"127.0.0.1:{server.server_port}", clients
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
