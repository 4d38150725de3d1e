"""Update masks (AIP-134)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

from google.protobuf import field_mask_pb2

Value = TypeVar("Value")


def masked(values: Mapping[str, Value], mask: field_mask_pb2.FieldMask) -> dict[str, Value]:
    """The values that an update changes: those that the mask names, or without a mask those that are not empty."""
    if mask.paths:
        return {path: values[path] for path in mask.paths}
    return {path: value for path, value in values.items() if value}
