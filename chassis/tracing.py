"""Traces of calls, recorded with OpenTelemetry and sent to a collector over OTLP (HTTP).

Imported only where traces are recorded: what a call that is not recorded pays for is a look at `Call.span`. Which are
recorded is decided once, where a call comes in: a `traceparent` of its client says so, or else chance. What happens
after that in any service belongs to the same trace.

A span holds the names of methods and services, codes, reasons, times and counts: no message, no token and no name of a
person. An error's text is left out, for it may repeat what somebody has sent.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import math
import os
import random
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Concatenate, ParamSpec, TypeVar

import grpc
from opentelemetry import context, trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider, sampling
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.trace import Link, SpanContext, SpanKind, Status, StatusCode, TraceFlags, TraceState

from chassis import errors, logs
from chassis.call import TRACESTATE_KEY, Call, current
from chassis.store import Database, after_commit

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")

_PROTOCOLS = ("", "http/protobuf")
_SECONDS_BETWEEN_LINES = 60.0
# A collector that did not answer last time is not waited for at the end.
_LAST_TRY_SECONDS = 1.0
# Timers of event loops count in milliseconds.
_TIMER_SECONDS = 0.002
# Of what a server answers, these are its own failures; the others are its caller's.
_FAILURES = frozenset(
    {
        grpc.StatusCode.UNKNOWN,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.UNIMPLEMENTED,
        grpc.StatusCode.INTERNAL,
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DATA_LOSS,
    }
)
_FAILED = Status(StatusCode.ERROR)
_SAMPLED = TraceFlags(TraceFlags.SAMPLED)
_ROOT = context.Context()

log = logs.get(__name__)


class WrongEnvironment(Exception):
    """A variable of OpenTelemetry asks for what is not here. Says which one, and what it takes."""


class Tracing:
    """What a process records. The collector and all that concerns it stand in OTEL_EXPORTER_OTLP_ENDPOINT and the other
    variables of OpenTelemetry, which its SDK reads.

    Args:
        ratio: The share of the calls that come in without a `traceparent` that is recorded.
        exporter: Where spans go. None: to the collector.

    Raises:
        WrongEnvironment: one of the variables asks for what is not here.
    """

    def __init__(self, ratio: float, exporter: SpanExporter | None = None) -> None:
        self._ratio = ratio
        _tell_in_log()
        self._exporter = _Telling(_otlp() if exporter is None else exporter)
        self._processor = BatchSpanProcessor(self._exporter)

    def tracer(self, part: str) -> Tracer:
        """For what a part of the suite does in this process."""
        resource = Resource.create(
            {"service.name": f"insta-{part}", "service.namespace": "insta", "process.pid": os.getpid()}
        )
        provider = TracerProvider(sampling.ALWAYS_ON, resource, shutdown_on_exit=False)
        provider.add_span_processor(self._processor)
        return Tracer(provider.get_tracer("insta"), self._ratio)

    def shutdown(self, seconds: float) -> None:
        """Send what is recorded, for so long at most."""
        if self._exporter.fails:
            seconds = min(seconds, _LAST_TRY_SECONDS)
        # It has no limit of its own.
        sending = threading.Thread(target=self._processor.shutdown, name="last-traces", daemon=True)
        sending.start()
        sending.join(seconds)
        if sending.is_alive():
            # It then begins no further try.
            self._exporter.shutdown()


class Tracer:
    """Records what one part of the suite does."""

    def __init__(self, tracer: trace.Tracer, ratio: float) -> None:
        self._tracer = tracer
        self._ratio = ratio

    def receive(self, call: Call, metadata: Sequence[tuple[str, str | bytes]]) -> None:
        """Record a call that came in over the network, if it is to be."""
        parent = None
        if call.traceparent:
            parent = _span_context(call.traceparent)
            if not parent.trace_flags.sampled:
                return
            states = [str(value) for key, value in metadata if key == TRACESTATE_KEY]
            if states:
                parent = _span_context(call.traceparent, TraceState.from_header(states))
        elif random.random() >= self._ratio:
            return
        call.span = CallSpan(self, self._start(call.method, SpanKind.SERVER, parent), call.deadline)
        call.trace_id = call.span.trace_id

    def receive_from(self, caller: CallSpan, call: Call) -> None:
        """Record a call of another part in this process, on both sides."""
        outgoing = caller.start(call.method, SpanKind.CLIENT)
        span = self._start(call.method, SpanKind.SERVER, outgoing.get_span_context())
        call.span = CallSpan(self, span, call.deadline, outgoing)

    @contextmanager
    def consuming(self, log_name: str, events: Sequence[Any]) -> Iterator[None]:
        """Record how events of a log are applied, if what led to any of them is recorded: a trace with links to it."""
        links = [Link(_span_context(told)) for told in dict.fromkeys(event.traceparent for event in events) if told]
        if not links:
            yield
            return
        attributes: dict[str, str | int] = {
            "messaging.system": "insta",
            "messaging.operation.type": "process",
            "messaging.destination.name": log_name,
            "messaging.batch.message_count": len(events),
        }
        span = self._tracer.start_span(f"process {log_name}", _ROOT, SpanKind.CONSUMER, attributes, links)
        recorded = CallSpan(self, span, math.inf)
        call = Call(f"process {log_name}", "", math.inf, recorded.trace_id)
        call.span = recorded
        before = current.set(call)
        try:
            yield
        except BaseException as failure:
            _set_failed(span, failure)
            raise
        finally:
            current.reset(before)
            span.end()

    def _start(self, path: str, kind: SpanKind, parent: SpanContext | None) -> trace.Span:
        name, attributes = _described(path)
        return self._tracer.start_span(name, _within(parent), kind, attributes)

    def start_within(self, parent: SpanContext, name: str, attributes: Mapping[str, str]) -> trace.Span:
        """A span of something that is no call."""
        return self._tracer.start_span(name, _within(parent), SpanKind.INTERNAL, attributes)


class CallSpan:
    """A call that is recorded, as who answers it sees it.

    Args:
        outgoing: The same call as its caller sees it, if that is in this process, too.

    Attributes:
        trace_id: 32 hexadecimal digits.
        traceparent: What names this span to others.
    """

    __slots__ = ("_context", "_deadline", "_outgoing", "_span", "_tracer", "trace_id", "traceparent")

    def __init__(self, tracer: Tracer, span: trace.Span, deadline: float, outgoing: trace.Span | None = None) -> None:
        self._tracer = tracer
        self._span = span
        self._deadline = deadline
        self._outgoing = outgoing
        self._context = span.get_span_context()
        self.trace_id = f"{self._context.trace_id:032x}"
        self.traceparent = _traceparent(self._context)

    def calling(self, path: str) -> OutgoingSpan:
        """A call to another process is made."""
        return OutgoingSpan(self.start(path, SpanKind.CLIENT), self._deadline)

    def writing(self, database: str) -> WriteSpan:
        """Something is written to a database."""
        attributes = {"db.namespace": database, "db.operation.name": "write"}
        return WriteSpan(self._tracer.start_within(self._context, f"write {database}", attributes))

    def start(self, path: str, kind: SpanKind) -> trace.Span:
        """A span of a call that is made meanwhile."""
        return self._tracer._start(path, kind, self._context)

    def end(self, code: grpc.StatusCode, error: errors.Error | None) -> None:
        """The call ended so."""
        code = _final_code(code, self._deadline)
        if error is not None:
            self._span.set_attribute("error.type", error.reason_name)
        if code in _FAILURES:
            self._span.set_status(_FAILED)
        self._span.set_attribute("rpc.grpc.status_code", code.value[0])
        self._span.end()
        if self._outgoing is not None:
            _end_outgoing(self._outgoing, code)


class OutgoingSpan:
    """A call to another process, as its caller sees it.

    Args:
        deadline: Of the call that makes it.

    Attributes:
        traceparent, tracestate: What is sent along with it. The second may be empty: then it is not sent.
    """

    __slots__ = ("_deadline", "_ending", "_span", "traceparent", "tracestate")

    def __init__(self, span: trace.Span, deadline: float) -> None:
        self._span = span
        self._deadline = deadline
        told = span.get_span_context()
        self.traceparent = _traceparent(told)
        self.tracestate = told.trace_state.to_header()

    def until_end_of(self, call: Any) -> Any:
        """End when a call of grpc.aio does. Returns the call."""
        call.add_done_callback(self._end)
        return call

    def _end(self, call: Any) -> None:
        # Its code is there, but only a coroutine tells it.
        self._ending = asyncio.ensure_future(self._end_as(call))

    async def _end_as(self, call: Any) -> None:
        _end_outgoing(self._span, _final_code(await call.code(), self._deadline))


class WriteSpan:
    """A change of a database that waits for its turn, runs, and is committed with others."""

    def __init__(self, span: trace.Span) -> None:
        self._span = span
        self._waits_since = time.monotonic()
        self._began = 0.0
        self._committed = 0.0
        self._writes = 0

    def timed(
        self, change: Callable[Concatenate[Database, Arguments], Result], writes: Callable[[], int]
    ) -> Callable[Concatenate[Database, Arguments], Result]:
        """The same change, of which is noted when it begins and is committed.

        Args:
            writes: Answers, after the commit, how many changes were committed together.
        """

        def commits() -> None:
            self._committed = time.monotonic()
            self._writes = writes()

        def run(db: Database, /, *args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
            self._began = time.monotonic()
            after_commit(commits)
            return change(db, *args, **kwargs)

        return run

    def __enter__(self) -> None:
        """The change is under way."""

    def __exit__(self, _: object, failure: BaseException | None, __: object) -> None:
        if self._began:
            self._span.set_attribute("insta.queue_seconds", self._began - self._waits_since)
        if self._committed:
            self._span.set_attribute("insta.transaction_seconds", self._committed - self._began)
            self._span.set_attribute("insta.writes", self._writes)
        if failure is not None:
            _set_failed(self._span, failure)
        self._span.end()


@functools.cache
def _described(path: str) -> tuple[str, Mapping[str, str]]:
    """The name of a call's span, insta.gateway.v1.PostService/GetPost, and what it says from its beginning."""
    name = path.removeprefix("/")
    service, _, method = name.partition("/")
    return name, {"rpc.system": "grpc", "rpc.service": service, "rpc.method": method}


def _within(parent: SpanContext | None) -> context.Context:
    return _ROOT if parent is None else trace.set_span_in_context(trace.NonRecordingSpan(parent), _ROOT)


def _span_context(traceparent: str, state: TraceState | None = None) -> SpanContext:
    _, trace_id, span_id, flags = traceparent.split("-")
    return SpanContext(int(trace_id, 16), int(span_id, 16), True, TraceFlags(int(flags, 16)), state)


def _traceparent(span: SpanContext) -> str:
    return f"00-{span.trace_id:032x}-{span.span_id:016x}-{span.trace_flags:02x}"


def _final_code(code: grpc.StatusCode, deadline: float) -> grpc.StatusCode:
    """The code of a call that ended. At its deadline it is cancelled, and everything that it waits for."""
    if code is grpc.StatusCode.CANCELLED and time.monotonic() >= deadline - _TIMER_SECONDS:
        return grpc.StatusCode.DEADLINE_EXCEEDED
    return code


def _end_outgoing(span: trace.Span, code: grpc.StatusCode) -> None:
    span.set_attribute("rpc.grpc.status_code", code.value[0])
    if code is not grpc.StatusCode.OK:
        span.set_attribute("error.type", code.name)
        span.set_status(_FAILED)
    span.end()


def _set_failed(span: trace.Span, failure: BaseException) -> None:
    if isinstance(failure, errors.Error):
        span.set_attribute("error.type", failure.reason_name)
        if failure.code not in _FAILURES:
            return
    else:
        span.set_attribute("error.type", type(failure).__name__)
    span.set_status(_FAILED)


def _otlp() -> SpanExporter:
    for variable in ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"):
        protocol = os.environ.get(variable, "").strip()
        if protocol not in _PROTOCOLS:
            raise WrongEnvironment(f"{variable}={protocol}: must be http/protobuf, which is spoken on port 4318")
    try:
        return OTLPSpanExporter()
    except (ValueError, OSError) as failure:
        raise WrongEnvironment(f"OTEL_EXPORTER_OTLP_*: {failure}") from None


class _Telling(SpanExporter):
    """Exports with another one, and tells in the log, now and then, that this fails.

    Attributes:
        fails: Whether the last export did.
    """

    def __init__(self, exporter: SpanExporter) -> None:
        self.fails = False
        self._exporter = exporter
        self._shut = False
        self._lost = 0
        self._told_at = -math.inf

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        result = self._exporter.export(spans)
        if result is SpanExportResult.SUCCESS:
            if self.fails:
                log.info("traces are exported again", lost_spans=self._lost)
            self.fails, self._lost, self._told_at = False, 0, -math.inf
            return result
        self.fails = True
        self._lost += len(spans)
        if time.monotonic() >= self._told_at + _SECONDS_BETWEEN_LINES:
            self._told_at = time.monotonic()
            log.warning("traces cannot be exported; see OTEL_EXPORTER_OTLP_ENDPOINT", lost_spans=self._lost)
        return result

    def shutdown(self) -> None:
        if not self._shut:
            self._shut = True
            self._exporter.shutdown()


class _ToLog(logging.Handler):
    """Passes on what OpenTelemetry has to say, each sentence now and then.

    Without the values in it, of which some are headers or addresses with secrets, but for numbers and kinds of failure.
    """

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._told_at: dict[str, float] = {}

    def emit(self, record: logging.LogRecord) -> None:
        now = time.monotonic()
        said = str(record.msg)
        if now < self._told_at.get(said, -math.inf) + _SECONDS_BETWEEN_LINES:
            return
        self._told_at[said] = now
        values = record.args if isinstance(record.args, tuple) else ()
        shown = [
            type(value).__name__ if isinstance(value, Exception) else value
            for value in values
            if isinstance(value, Exception | int)
        ]
        log.warning("OpenTelemetry warns", said=said, values=shown)


def _tell_in_log() -> None:
    its_own = logging.getLogger("opentelemetry")
    its_own.propagate = False
    if not any(isinstance(handler, _ToLog) for handler in its_own.handlers):
        its_own.addHandler(_ToLog())
