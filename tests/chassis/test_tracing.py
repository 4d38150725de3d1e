"""Traces: what is recorded of calls, writes and events, what is not, and what happens when nobody takes it."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import grpc
import pytest
import pytest_asyncio
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from structlog.testing import capture_logs

from chassis import call as calls
from chassis import errors, events
from chassis.call import Call, current
from chassis.consumer import Consumer
from chassis.errors import Reason
from chassis.settings import SettingError, Settings
from chassis.store import Database, Store
from chassis.tracing import Tracing
from insta.posts.v1 import posts_pb2, posts_pb2_grpc
from insta.users.v1 import events_pb2
from suite.composition import tracing_of
from tests import databases
from tests.chassis import items
from tests.chassis.event_logs import open_store
from tests.chassis.issuer import Issuer
from tests.chassis.peers import Peer, running
from tests.chassis.streams.media import Chunk, MediaStub, media_running
from tests.collector import Collector, Span, collecting, tree
from tests.people import failure, until

REQUEST = posts_pb2.GetPostRequest(post_id=5)
TRACE_ID = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT_ID = "00f067aa0ba902b7"
SAMPLED = ("traceparent", f"00-{TRACE_ID}-{PARENT_ID}-01")
UNSAMPLED = ("traceparent", f"00-{TRACE_ID}-{PARENT_ID}-00")
SECRET = "what nobody may see"
TWO_SERVICES = [
    "server PostService/GetPost",
    "  client PostService/GetPost",
    "    server PostService/GetPost",
]


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    """The place where traces go."""
    with collecting() as started:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", started.url)
        yield started


@pytest.fixture
def tracing(collector: Collector, request: pytest.FixtureRequest) -> Iterator[Tracing]:
    """Records everything, or the share that the test names."""
    recording = Tracing(getattr(request, "param", 1.0))
    yield recording
    recording.shutdown(5)


@pytest_asyncio.fixture(params=("local", "remote"))
async def back(request: pytest.FixtureRequest, issuer: Issuer, tracing: Tracing) -> AsyncIterator[Peer]:
    """A service that `front` calls, in each of the two ways."""
    async with running(request.param, issuer, tracer=tracing.tracer("back")) as started:
        yield started


@pytest_asyncio.fixture
async def front(back: Peer, issuer: Issuer, tracing: Tracing) -> AsyncIterator[posts_pb2_grpc.PostServiceStub]:
    """A service that asks another for its answer, as a client reaches it."""

    async def ask(request: posts_pb2.GetPostRequest) -> posts_pb2.GetPostResponse:
        return await back.posts.GetPost(request, timeout=30)

    async with running("remote", issuer, tracer=tracing.tracer("front")) as started:
        started.servicer.script = ask
        async with grpc.aio.insecure_channel(started.address, [("grpc.use_local_subchannel_pool", 1)]) as channel:
            yield posts_pb2_grpc.PostServiceStub(channel)


async def recorded(tracing: Tracing, collector: Collector, count: int) -> list[Span]:
    """All that was, once it is so many spans. Nothing is recorded afterwards."""

    async def waiting() -> bool:
        await asyncio.to_thread(tracing._processor.force_flush)
        return len(collector.spans) >= count

    # A client hears of the end of its call before the server's span has ended.
    await until(waiting)
    await asyncio.to_thread(tracing.shutdown, 5)
    assert len(collector.spans) == count, collector.spans
    return sorted(collector.spans, key=lambda span: span.start)


async def nothing_recorded(tracing: Tracing, collector: Collector) -> None:
    await asyncio.to_thread(tracing.shutdown, 5)
    assert collector.spans == []


def raising(error: BaseException) -> Any:
    async def script(request: Any) -> Any:
        raise error

    return script


async def test_one_trace_goes_over_services_in_the_order_of_their_calls(
    front: posts_pb2_grpc.PostServiceStub, tracing: Tracing, collector: Collector, token: Any
) -> None:
    call = front.GetPost(REQUEST, metadata=token)
    await call

    spans = await recorded(tracing, collector, 3)
    trace_id = dict(await call.trailing_metadata())["trace-id"]
    assert {span.trace_id for span in spans} == {trace_id}
    assert tree(spans) == TWO_SERVICES
    outer, outgoing, inner = spans
    assert [span.service for span in spans] == ["insta-front", "insta-front", "insta-back"]
    assert outer.start <= outgoing.start <= inner.start <= inner.end <= outgoing.end
    for span in spans:
        assert span.name == "insta.posts.v1.PostService/GetPost"
        assert span.attributes == {
            "rpc.system": "grpc",
            "rpc.service": "insta.posts.v1.PostService",
            "rpc.method": "GetPost",
            "rpc.grpc.status_code": 0,
        }
        assert not span.failed


@pytest.mark.parametrize("tracing", [1e-9], indirect=True)
async def test_what_a_client_records_is_recorded_as_part_of_it(
    front: posts_pb2_grpc.PostServiceStub, tracing: Tracing, collector: Collector, token: Any
) -> None:
    call = front.GetPost(REQUEST, metadata=[SAMPLED, ("tracestate", "vendor=1,other=2"), *token])
    await call

    spans = await recorded(tracing, collector, 3)
    assert dict(await call.trailing_metadata())["trace-id"] == TRACE_ID
    assert {span.trace_id for span in spans} == {TRACE_ID}
    assert tree(spans, PARENT_ID) == TWO_SERVICES
    assert {span.tracestate for span in spans} == {"vendor=1,other=2"}


async def test_what_a_client_does_not_record_is_not_recorded(
    front: posts_pb2_grpc.PostServiceStub, tracing: Tracing, collector: Collector, token: Any
) -> None:
    call = front.GetPost(REQUEST, metadata=[UNSAMPLED, *token])
    await call

    assert dict(await call.trailing_metadata())["trace-id"] == TRACE_ID
    await nothing_recorded(tracing, collector)


@pytest.mark.parametrize("tracing", [1e-9], indirect=True)
async def test_what_chance_leaves_out_is_recorded_nowhere(
    front: posts_pb2_grpc.PostServiceStub, back: Peer, tracing: Tracing, collector: Collector, token: Any
) -> None:
    trace_ids = []

    async def note(request: Any) -> Any:
        call = current.get()
        assert call is not None
        trace_ids.append(call.trace_id)
        return posts_pb2.GetPostResponse()

    back.servicer.script = note
    call = front.GetPost(REQUEST, metadata=token)
    await call

    assert trace_ids == [dict(await call.trailing_metadata())["trace-id"]]
    await nothing_recorded(tracing, collector)


@pytest.mark.parametrize("tracing", [0.5], indirect=True)
async def test_the_share_of_calls_that_is_set_is_recorded(tracing: Tracing) -> None:
    tracer = tracing.tracer("front")

    def is_recorded() -> bool:
        call = Call("/insta.posts.v1.PostService/GetPost", "", 0.0, calls.new_trace_id())
        tracer.receive(call, ())
        return call.span is not None

    # Six standard deviations.
    assert 300 < sum(is_recorded() for _ in range(800)) < 500


@pytest.mark.parametrize("back", ["remote"], indirect=True)
@pytest.mark.parametrize(("metadata", "passed_on"), [(SAMPLED, SAMPLED[1]), (UNSAMPLED, UNSAMPLED[1]), (None, None)])
async def test_a_service_that_records_nothing_passes_on_what_its_client_sent(
    back: Peer, issuer: Issuer, tracing: Tracing, collector: Collector, token: Any, metadata: Any, passed_on: str | None
) -> None:
    seen = []

    async def note(request: Any) -> Any:
        call = current.get()
        assert call is not None
        seen.append(call.traceparent)
        return posts_pb2.GetPostResponse()

    async def ask(request: Any) -> Any:
        return await back.posts.GetPost(request, timeout=30)

    back.servicer.script = note
    async with running("remote", issuer) as silent:
        silent.servicer.script = ask
        async with grpc.aio.insecure_channel(silent.address, [("grpc.use_local_subchannel_pool", 1)]) as channel:
            sent = [metadata, *token] if metadata else token
            call = posts_pb2_grpc.PostServiceStub(channel).GetPost(REQUEST, metadata=sent)
            await call
            trace_id = dict(await call.trailing_metadata())["trace-id"]

    if passed_on is None:
        assert seen[0].startswith(f"00-{trace_id}-")
        assert seen[0].endswith("-00")
    else:
        assert seen == [passed_on]
    if metadata is SAMPLED:
        assert tree(await recorded(tracing, collector, 1), PARENT_ID) == ["server PostService/GetPost"]
    else:
        await nothing_recorded(tracing, collector)


@pytest.mark.parametrize(
    ("error", "code", "failed"),
    [
        (errors.NotFound(Reason.REASON_POST_NOT_FOUND, SECRET), grpc.StatusCode.NOT_FOUND, False),
        (errors.deadline_exceeded(), grpc.StatusCode.DEADLINE_EXCEEDED, True),
        (ZeroDivisionError(SECRET), grpc.StatusCode.INTERNAL, True),
    ],
    ids=["refused", "late", "defect"],
)
async def test_a_call_that_fails_has_its_code_and_its_reason_and_no_text(
    front: posts_pb2_grpc.PostServiceStub,
    back: Peer,
    tracing: Tracing,
    collector: Collector,
    token: Any,
    error: Exception,
    code: grpc.StatusCode,
    failed: bool,
) -> None:
    back.servicer.script = raising(error)
    answer = await failure(front.GetPost(REQUEST, metadata=token))

    outer, outgoing, inner = await recorded(tracing, collector, 3)
    assert {span.trace_id for span in (outer, outgoing, inner)} == {answer.trace_id}
    for span in (outer, inner):
        assert (span.attributes["rpc.grpc.status_code"], span.failed) == (code.value[0], failed)
        assert span.attributes["error.type"] == answer.reason
    # A client's call has failed whatever the reason.
    assert (outgoing.attributes["rpc.grpc.status_code"], outgoing.failed) == (code.value[0], True)
    assert outgoing.attributes["error.type"] == code.name
    assert SECRET not in repr(collector.spans)


async def test_a_call_that_ends_with_its_deadline_says_so_on_both_sides(
    front: posts_pb2_grpc.PostServiceStub, back: Peer, tracing: Tracing, collector: Collector, token: Any
) -> None:
    async def endless(request: Any) -> Any:
        await asyncio.Event().wait()

    back.servicer.script = endless
    await failure(front.GetPost(REQUEST, metadata=token, timeout=0.3))

    spans = await recorded(tracing, collector, 3)
    expected = grpc.StatusCode.DEADLINE_EXCEEDED.value[0]
    assert [span.attributes["rpc.grpc.status_code"] for span in spans] == [expected] * 3
    assert all(span.failed for span in spans)


async def test_nothing_of_a_message_or_a_caller_is_recorded(
    front: posts_pb2_grpc.PostServiceStub, back: Peer, tracing: Tracing, collector: Collector, token: Any
) -> None:
    async def answer(request: Any) -> Any:
        return posts_pb2.GetPostResponse(post=posts_pb2.Post(title=SECRET))

    back.servicer.script = answer
    await front.GetPost(REQUEST, metadata=token)

    told = repr(await recorded(tracing, collector, 3))
    assert SECRET not in told
    assert token[0][1].removeprefix("Bearer ") not in told


@pytest.mark.parametrize("kind", ["local", "remote"])
async def test_streams_are_recorded_as_well(
    kind: str, issuer: Issuer, tracing: Tracing, collector: Collector, token: Any
) -> None:
    async with (
        media_running(kind, issuer, tracer=tracing.tracer("back")) as back,
        media_running("remote", issuer, tracer=tracing.tracer("front")) as front,
    ):

        async def upload(requests: AsyncIterator[Any]) -> Any:
            return await back.media.UploadMedia(requests, timeout=30)

        async def download(request: Any) -> AsyncIterator[Any]:
            async for chunk in back.media.DownloadMedia(request, timeout=30):
                yield chunk

        async def chunks() -> AsyncIterator[Any]:
            for number in range(3):
                yield Chunk(number=number)

        front.servicer.upload, front.servicer.download = upload, download  # type: ignore[assignment]
        async with grpc.aio.insecure_channel(front.address, [("grpc.use_local_subchannel_pool", 1)]) as channel:
            media = MediaStub(channel)
            assert (await media.UploadMedia(chunks(), metadata=token)).number == 3
            assert [chunk.number async for chunk in media.DownloadMedia(Chunk(number=2), metadata=token)] == [0, 1]
        spans = await recorded(tracing, collector, 6)

    for name in ("UploadMedia", "DownloadMedia"):
        ours = [span for span in spans if span.name.endswith(name)]
        assert tree(ours) == [
            f"server MediaService/{name}",
            f"  client MediaService/{name}",
            f"    server MediaService/{name}",
        ]
        assert {span.attributes["rpc.grpc.status_code"] for span in ours} == {0}


@pytest.fixture
def under_way(tracing: Tracing) -> Iterator[Call]:
    """A call that is recorded, under way in the test."""
    call = Call("/insta.posts.v1.PostService/CreatePost", "", float("inf"), calls.new_trace_id())
    tracing.tracer("posts").receive(call, ())
    assert call.span is not None
    before = current.set(call)
    yield call
    current.reset(before)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with closing(databases.open_store(tmp_path / "items.db", items.MIGRATIONS)) as opened:
        yield opened


@pytest.mark.sqlite
async def test_a_write_is_recorded_with_its_waiting_and_those_that_were_committed_with_it(
    store: Store, under_way: Call, tracing: Tracing, collector: Collector
) -> None:
    def slow(db: Database) -> None:
        # Until all others wait.
        while store._jobs.qsize() < 3:  # type: ignore[attr-defined]
            time.sleep(0.001)

    await asyncio.gather(store.write(slow), *(store.write(items.add, f"item {number}") for number in range(3)))

    spans = await recorded(tracing, collector, 4)
    assert {(span.name, span.service, span.kind) for span in spans} == {("write items", "insta-posts", "internal")}
    assert {span.trace_id for span in spans} == {under_way.trace_id}
    for span in spans:
        assert under_way.span is not None
        assert span.parent_id == under_way.span.traceparent.split("-")[2]
        assert span.attributes["db.namespace"] == "items"
        assert span.attributes["insta.writes"] == 4
        seconds = (span.end - span.start) / 1e9
        waited, lasted = (span.attributes[f"insta.{name}_seconds"] for name in ("queue", "transaction"))
        assert 0 <= waited <= waited + lasted <= seconds + 0.001
    assert not any(span.failed for span in spans)


async def test_a_write_that_is_undone_says_why(
    store: Store, under_way: Call, tracing: Tracing, collector: Collector
) -> None:
    def refuse(db: Database) -> None:
        raise errors.NotFound(Reason.REASON_POST_NOT_FOUND, SECRET)

    def fail(db: Database) -> None:
        raise LookupError(SECRET)

    with pytest.raises(errors.NotFound):
        await store.write(refuse)
    with pytest.raises(LookupError):
        await store.write(fail)

    refused, failed = await recorded(tracing, collector, 2)
    assert (refused.attributes["error.type"], refused.failed) == ("POST_NOT_FOUND", False)
    assert (failed.attributes["error.type"], failed.failed) == ("LookupError", True)
    for span in (refused, failed):
        assert "insta.writes" not in span.attributes
    assert SECRET not in repr(collector.spans)


async def test_events_carry_the_trace_only_of_what_is_recorded(tmp_path: Path, under_way: Call) -> None:
    with closing(open_store(tmp_path / "there.db")) as log:
        await log.write(events.begin)
        await log.write(events.append, _deleted(1))
        current.set(None)
        await log.write(events.append, _deleted(2))
        current.set(Call("/insta.posts.v1.PostService/CreatePost", "", float("inf"), TRACE_ID, traceparent=SAMPLED[1]))
        await log.write(events.append, _deleted(3))
        databases.settle(log)
        batch = await log.read(events.read, 0, 0, 10)

    assert under_way.span is not None
    assert [_event(event).traceparent for event in batch.events] == [under_way.span.traceparent, "", ""]


@pytest.mark.parametrize("fails", [False, True])
async def test_a_consumer_links_to_what_led_to_the_events_that_it_applies(
    tmp_path: Path, tracing: Tracing, collector: Collector, fails: bool
) -> None:
    told = [f"00-{number:032x}-{number:016x}-01" for number in (1, 2)]
    batch = _Batch([_deleted(1, told[0]), _deleted(2), _deleted(3, told[0]), _deleted(4, told[1])])
    seen = []

    def apply(db: Database, event: Any) -> None:
        call = current.get()
        assert call is not None
        seen.append(call.trace_id)
        if fails:
            raise LookupError(SECRET)

    with closing(open_store(tmp_path / "here.db")) as here:
        consumer = _consumer(here, batch, apply, tracing)
        if fails:
            with pytest.raises(LookupError):
                await consumer.step()
        else:
            await consumer.step()

    assert current.get() is None
    applied, write = await recorded(tracing, collector, 2)
    assert (applied.name, applied.kind, applied.service) == ("process users", "consumer", "insta-social")
    assert applied.links == [(f"{number:032x}", f"{number:016x}") for number in (1, 2)]
    assert applied.parent_id == ""
    assert applied.attributes["messaging.batch.message_count"] == 4
    assert write.name == f"write {write.attributes['db.namespace']}"
    assert (write.trace_id, write.parent_id) == (applied.trace_id, applied.span_id)
    assert set(seen) == {applied.trace_id}
    assert (applied.failed, write.failed) == (fails, fails)
    assert SECRET not in repr(collector.spans)


async def test_a_consumer_of_what_is_not_recorded_records_nothing(
    tmp_path: Path, tracing: Tracing, collector: Collector
) -> None:
    with closing(open_store(tmp_path / "here.db")) as here:
        await _consumer(here, _Batch([_deleted(1), _deleted(2)]), lambda db, event: None, tracing).step()

    await nothing_recorded(tracing, collector)


async def test_a_collector_that_is_away_costs_a_line_in_the_log(
    monkeypatch: pytest.MonkeyPatch,
    unused_tcp_port: int,
    issuer: Issuer,
    token: Any,
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://key:{SECRET}@127.0.0.1:{unused_tcp_port}")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", f"not a header {SECRET}")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "0.1")
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "1")
    with capture_logs() as lines:
        tracing = Tracing(1.0)
        async with (
            running("remote", issuer, tracer=tracing.tracer("front")) as peer,
            grpc.aio.insecure_channel(peer.address) as channel,
        ):
            stub = posts_pb2_grpc.PostServiceStub(channel)

            async def fails_often() -> bool:
                await stub.GetPost(REQUEST, metadata=token)
                return tracing._exporter._lost > 3

            await until(fails_often)
        began = time.monotonic()
        await asyncio.to_thread(tracing.shutdown, 10)

    assert time.monotonic() - began < 5
    assert [line["event"] for line in lines].count("traces cannot be exported; see OTEL_EXPORTER_OTLP_ENDPOINT") == 1
    assert SECRET not in repr(lines)
    said = [line["said"] for line in lines if line["event"] == "OpenTelemetry warns"]
    assert len(said) == len(set(said))


async def test_a_collector_that_refuses_is_heard_of_and_so_is_its_return(monkeypatch: pytest.MonkeyPatch) -> None:
    exporters = []

    def sending_to(url: str) -> Callable[[], Any]:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", url)
        tracing = Tracing(1.0)
        exporters.append(tracing)
        return tracing._exporter._exporter.export  # type: ignore[return-value]

    with collecting(status=400) as refusing, collecting() as taking, capture_logs() as lines:
        refused, taken = sending_to(refusing.url), sending_to(taking.url)
        tracing = exporters[0]
        for export in (refused, refused, taken):
            monkeypatch.setattr(tracing._exporter._exporter, "export", export)
            _record_one(tracing)
            await asyncio.to_thread(tracing._processor.force_flush)
        for each in exporters:
            each.shutdown(5)

    told = [(line["event"].partition(";")[0], line["lost_spans"]) for line in lines if "lost_spans" in line]
    assert told == [("traces cannot be exported", 1), ("traces are exported again", 2)]
    assert len(taking.spans) == 1


async def test_what_is_recorded_last_is_sent_at_the_end(tracing: Tracing, collector: Collector) -> None:
    _record_one(tracing)
    await asyncio.to_thread(tracing.shutdown, 5)

    assert [span.short for span in collector.spans] == ["server PostService/GetPost"]


class Stuck(SpanExporter):
    """Takes nothing until it is shut down; at first it may fail at once."""

    def __init__(self, fails_first: bool) -> None:
        self.is_shut = threading.Event()
        self._fails = fails_first

    def export(self, spans: Any) -> SpanExportResult:
        if not self._fails:
            self.is_shut.wait(30)
        self._fails = False
        return SpanExportResult.FAILURE

    def shutdown(self) -> None:
        self.is_shut.set()


@pytest.mark.parametrize(("failing", "seconds"), [(True, 60), (False, 0.1)], ids=["failing", "slow"])
async def test_a_stop_waits_for_a_collector_no_longer_than_it_may(failing: bool, seconds: float) -> None:
    exporter = Stuck(fails_first=failing)
    tracing = Tracing(1.0, exporter)
    with capture_logs():
        for _ in range(2 if failing else 1):
            await asyncio.to_thread(tracing._processor.force_flush)
            _record_one(tracing)
        began = time.monotonic()
        await asyncio.to_thread(tracing.shutdown, seconds)

    assert time.monotonic() - began < 10
    assert exporter.is_shut.is_set()


@pytest.mark.parametrize("variable", ["OTEL_EXPORTER_OTLP_PROTOCOL", "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL"])
def test_a_protocol_that_is_not_spoken_is_told_by_its_variable(monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    monkeypatch.setenv(variable, "grpc")

    with pytest.raises(SettingError, match=f"{variable}=grpc: must be http/protobuf"):
        tracing_of(Settings(trace_ratio=1.0))


def test_without_its_library_the_setting_is_told_with_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    monkeypatch.delitem(sys.modules, "chassis.tracing")

    with pytest.raises(SettingError, match=r"^INSTA_TRACE_RATIO=0.5: .* pip install 'insta\[tracing\]'$"):
        tracing_of(Settings(trace_ratio=0.5))


def test_nothing_is_imported_where_nothing_is_recorded(tmp_path: Path) -> None:
    script = f"""
import asyncio, pathlib, sys
import suite.run
from chassis.settings import Settings
from suite.composition import GATEWAY, Assembly
from suite.serving import together

async def assemble():
    await Assembly(Settings(data=pathlib.Path({str(tmp_path)!r})), together(), GATEWAY).close()

asyncio.run(assemble())
sys.exit(any(name.partition(".")[0] == "opentelemetry" or name == "chassis.tracing" for name in sys.modules))
"""
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


def _record_one(tracing: Tracing) -> None:
    """A call that begins and ends."""
    call = Call("/insta.posts.v1.PostService/GetPost", "", 0.0, TRACE_ID)
    tracing.tracer("posts").receive(call, ())
    assert call.span is not None
    call.span.end(grpc.StatusCode.OK, None)


class _Batch:
    """An answer of a log, complete."""

    def __init__(self, told: list[events_pb2.Event]) -> None:
        self.events = told
        for offset, event in enumerate(told, 1):
            event.offset = offset
        self.next_offset = self.head_offset = self.newest_offset = len(told)
        self.epoch, self.floor_offset = "epoch", 0
        self.remaining_count = 0


def _consumer(here: Store, batch: _Batch, apply: Callable[[Database, Any], None], tracing: Tracing) -> Consumer:
    async def read(offset: int, limit: int) -> _Batch:
        return batch

    async def nothing_to_compare() -> None:
        raise AssertionError

    return Consumer(here, "users", read, apply, nothing_to_compare, lambda lag: None, tracing.tracer("social"))


def _deleted(user_id: int, traceparent: str = "") -> events_pb2.Event:
    return events_pb2.Event(user_deleted=events_pb2.UserDeleted(user_id=user_id), traceparent=traceparent)


def _event(logged: events.Event) -> events_pb2.Event:
    return events_pb2.Event.FromString(bytes(logged.payload))
