"""Traces of a real suite, as a collector receives them: one over all its parts, in one process and in several."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import signal
import socket
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from insta.gateway.v1 import accounts_pb2, posts_pb2, posts_pb2_grpc
from tests.collector import Collector, Span, collecting, tree
from tests.databases import name_of
from tests.people import People, Person, until
from tests.running import PASSWORD, RunningSuite, environment, insta, running

PARENT_ID = "00f067aa0ba902b7"


def creation(suite: RunningSuite) -> list[str]:
    """The spans of a new post, whose author's profile the gateway did not know yet."""
    return [
        "server PostService/CreatePost",
        "  client PostService/CreatePost",
        "    server PostService/CreatePost",
        f"      internal write {name_of(suite, 'posts')}",
        "  client UserService/BatchGetUsers",
        "    server UserService/BatchGetUsers",
        "  client MediaService/BatchGetAvatars",
        "    server MediaService/BatchGetAvatars",
    ]


def deletion(suite: RunningSuite) -> list[str]:
    """The spans of the deletion of an account."""
    return [
        "server AccountService/DeleteAccount",
        "  client UserService/DeleteUser",
        "    server UserService/DeleteUser",
        f"      internal write {name_of(suite, 'users')}",
    ]


@contextmanager
def recorded(mode: str, data: Path, collector: Collector, **settings: str) -> Iterator[RunningSuite]:
    with running(
        mode,
        data,
        INSTA_TRACE_RATIO="1",
        OTEL_EXPORTER_OTLP_ENDPOINT=collector.url,
        OTEL_EXPORTER_OTLP_HEADERS="api-key=for-the-collector",
        OTEL_BSP_SCHEDULE_DELAY="50",
        **settings,
    ) as started:
        yield started


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    with collecting() as started:
        yield started


@pytest.fixture(scope="module", params=["together", "apart"])
def suite(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, collector: Collector
) -> Iterator[RunningSuite]:
    """A suite that records everything."""
    with recorded(request.param, tmp_path_factory.mktemp(request.param) / "var", collector) as started:
        yield started


@pytest_asyncio.fixture
async def members(suite: RunningSuite) -> AsyncIterator[People]:
    people = People(suite.address)
    yield people
    await people.channel.close()


async def spans_of(collector: Collector, trace_id: str, count: int) -> list[Span]:
    """The spans of a trace, once there are so many."""

    async def there() -> bool:
        return len(collector.trace(trace_id)) >= count

    await until(there)
    return collector.trace(trace_id)


async def trace_of(call: Any) -> str:
    await call
    return str(dict(await call.trailing_metadata())["trace-id"])


async def delete(person: Person) -> str:
    """Delete somebody's account. The trace id of that."""
    return await trace_of(person.accounts.DeleteAccount(accounts_pb2.DeleteAccountRequest(password=PASSWORD)))


async def test_one_trace_goes_from_the_gateway_to_the_database(
    suite: RunningSuite, members: People, collector: Collector
) -> None:
    ana, ben = await members.join(), await members.join()
    # From now on each part knows the keys that verify tokens.
    await ben.post()
    trace_id = await trace_of(ana.posts.CreatePost(posts_pb2.CreatePostRequest(title="First light")))

    spans = await spans_of(collector, trace_id, len(creation(suite)))

    # What the gateway asks at once begins in any order.
    assert sorted(tree(spans)) == sorted(creation(suite))
    assert tree(spans)[:4] == creation(suite)[:4]
    by_id = {span.span_id: span for span in spans}
    for span in spans:
        if span.kind == "server":
            assert span.service == f"insta-{span.name.split('.')[1]}"
        if span.parent_id:
            parent = by_id[span.parent_id]
            assert parent.start <= span.start <= span.end <= parent.end + 1_000_000
            same_process = suite.mode == "together" or span.kind != "server"
            assert (parent.pid == span.pid) == same_process
    write = next(span for span in spans if span.kind == "internal")
    assert (write.service, write.attributes["insta.writes"]) == ("insta-posts", 1)
    assert collector.headers["api-key"] == "for-the-collector"


async def test_who_consumes_an_event_links_to_the_call_that_it_came_of(
    suite: RunningSuite, members: People, collector: Collector
) -> None:
    ana = await members.join()
    trace_id = await delete(ana)

    def consuming() -> dict[str, Span]:
        linked = (span for span in list(collector.spans) if trace_id in [trace for trace, _ in span.links])
        return {span.service: span for span in linked}

    async def consumers() -> set[str]:
        return set(consuming())

    await until(consumers, {"insta-posts", "insta-social"})
    deleted = await spans_of(collector, trace_id, len(deletion(suite)))
    assert tree(deleted) == deletion(suite)
    (deleting,) = (span for span in deleted if span.short == "server UserService/DeleteUser")
    for service, consumer in consuming().items():
        assert (consumer.kind, consumer.name, consumer.parent_id) == ("consumer", "process users", "")
        assert (trace_id, deleting.span_id) in consumer.links
        name = service.removeprefix("insta-")
        spans = await spans_of(collector, consumer.trace_id, 2)
        assert tree(spans) == ["consumer process users", f"  internal write {name_of(suite, name)}"]
        assert {span.pid for span in spans} == {consumer.pid}


async def test_the_log_names_the_trace_in_every_part(
    suite: RunningSuite, members: People, collector: Collector
) -> None:
    ana = await members.join()
    trace_id = await delete(ana)
    assert suite.log is not None
    log = suite.log

    async def named() -> set[str]:
        lines = (json.loads(line) for line in log.read_text().splitlines() if line.startswith("{"))
        return {line["method"] for line in lines if line.get("trace_id") == trace_id}

    await until(named, {"/insta.users.v1.UserService/DeleteUser"})
    await spans_of(collector, trace_id, len(deletion(suite)))


async def test_nothing_that_people_sent_is_recorded(suite: RunningSuite, members: People, collector: Collector) -> None:
    ana = await members.join(first_name="Anastasia")
    trace_id = await trace_of(ana.posts.CreatePost(posts_pb2.CreatePostRequest(title="Nobody reads this")))
    await spans_of(collector, trace_id, len(creation(suite)))
    last = await delete(ana)
    await spans_of(collector, last, len(deletion(suite)))

    told = repr(collector.spans)
    for secret in (ana.username, ana.token, PASSWORD, "Anastasia", "Nobody reads this", ana.refresh_token):
        assert secret not in told


async def test_the_flag_of_a_client_decides(suite: RunningSuite, members: People, collector: Collector) -> None:
    ana = await members.join()
    posts = posts_pb2_grpc.PostServiceStub(members.channel)
    of = {"00": secrets.token_hex(16), "01": secrets.token_hex(16)}
    for flags, trace_id in of.items():
        parent = ("traceparent", f"00-{trace_id}-{PARENT_ID}-{flags}")
        call = posts.CreatePost(
            posts_pb2.CreatePostRequest(title="First light"),
            metadata=[parent, ("authorization", f"Bearer {ana.token}")],
        )
        assert await trace_of(call) == trace_id

    # Whose profile is known was asked for by the first call.
    spans = await spans_of(collector, of["01"], 4)
    assert tree(spans, PARENT_ID) == creation(suite)[:4]
    assert collector.trace(of["00"]) == []
    assert [span for span in collector.spans if of["00"] in dict(span.links)] == []


async def test_a_collector_that_is_away_holds_up_neither_calls_nor_the_stop(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent, collecting() as nobody:
        # It takes connections, and answers nothing.
        nobody.url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with recorded("together", tmp_path / "var", nobody, INSTA_DRAIN_SECONDS="1") as suite:
            people = People(suite.address)
            ana = await people.join()
            began = time.monotonic()
            for _ in range(20):
                await ana.post()
            took = time.monotonic() - began
            await people.channel.close()
            assert suite.process is not None
            began = time.monotonic()
            os.kill(suite.process.pid, signal.SIGTERM)
            await asyncio.to_thread(suite.process.wait, 30)
            stopped_in = time.monotonic() - began

    assert took < 5
    # What the collector is waited for, and what a stop takes by itself where others have the processors.
    assert stopped_in < 6


def test_a_wrong_variable_of_opentelemetry_stops_the_start_with_a_sentence(tmp_path: Path) -> None:
    given = environment(tmp_path, INSTA_TRACE_RATIO="1", OTEL_EXPORTER_OTLP_PROTOCOL="grpc")
    result = insta("up", environment=given)

    assert result.returncode == 1
    assert result.stderr.startswith(
        "Error: INSTA_TRACE_RATIO=1: OTEL_EXPORTER_OTLP_PROTOCOL=grpc: must be http/protobuf"
    )
