"""How a call that failed is told to a person."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import grpc
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from chassis.call import TRACE_KEY
from suite.check import unreachable


def told(address: str, error: grpc.RpcError) -> str:
    """A failure with all that the server said about it."""
    trailers: dict[str, Any] = dict(error.trailing_metadata() or ())  # type: ignore[arg-type]
    if error.code() is grpc.StatusCode.UNAVAILABLE and TRACE_KEY not in trailers:
        return f"Error: {unreachable(address, error)}"
    lines = [("code", error.code().name), ("message", error.details())]
    status = rpc_status.from_call(error)
    for detail in status.details if status else ():
        lines += _detail(detail)
    if TRACE_KEY in trailers:
        lines.append(("trace id", trailers[TRACE_KEY]))
    return "\n".join(f"{name + ':':10}{text}" for name, text in lines)


def _detail(detail: Any) -> Iterator[tuple[str, str]]:
    info = error_details_pb2.ErrorInfo()
    bad_request = error_details_pb2.BadRequest()
    retry = error_details_pb2.RetryInfo()
    if detail.Unpack(info):
        yield "reason", info.reason
        yield from info.metadata.items()
    elif detail.Unpack(bad_request):
        for violation in bad_request.field_violations:
            yield "field", f"{violation.field}: {violation.description}"
    elif detail.Unpack(retry):
        yield "retry", f"in {retry.retry_delay.ToTimedelta().total_seconds():g} s"
