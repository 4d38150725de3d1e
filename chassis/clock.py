"""Time: microseconds since 1970 in the databases, `Timestamp` in the contracts."""

from __future__ import annotations

import time

from google.protobuf import timestamp_pb2


def now() -> int:
    """The current time in microseconds since 1970 (UTC)."""
    return time.time_ns() // 1000


def timestamp(micros: int) -> timestamp_pb2.Timestamp:
    """The message for a time in microseconds since 1970."""
    return timestamp_pb2.Timestamp(seconds=micros // 1_000_000, nanos=micros % 1_000_000 * 1000)


def set_timestamp(field: timestamp_pb2.Timestamp, micros: int) -> None:
    """Set a field of a message to a time in microseconds since 1970: half of what it takes to make it from another."""
    field.seconds = micros // 1_000_000
    field.nanos = micros % 1_000_000 * 1000
