"""Update masks (AIP-134)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

from google.protobuf import field_mask_pb2

from chassis import errors

Value = TypeVar("Value")


def masked(values: Mapping[str, Value], mask: field_mask_pb2.FieldMask) -> dict[str, Value]:
    """The values that an update changes: those that the mask names, or without a mask those that are not empty.

    Raises:
        InvalidArgument: the mask names something else. (The rules of a contract let what lies below its paths pass.)
    """
    if not mask.paths:
        return {path: value for path, value in values.items() if value}
    if not values.keys() >= set(mask.paths):
        raise errors.invalid_field("update_mask", f"must only contain paths in [{', '.join(values)}]")
    return {path: values[path] for path in mask.paths}
