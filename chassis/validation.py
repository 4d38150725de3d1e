"""Checks requests against the rules in their contract (buf.validate), and tells of all violations at once."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import TYPE_CHECKING

from google.protobuf import message

from chassis import errors

if TYPE_CHECKING:
    import protovalidate

_MASK_PATHS = "google.protobuf.FieldMask.paths"

# Requests with more items in their lists than this are told their first violation only.
_ITEMS_LIMIT = 1000
# Up to this size also a request of nothing but items is checked in no time.
_SMALL_BYTES = 64 * 1024


def check(request: message.Message) -> None:
    """Let a request pass that keeps all rules.

    Raises:
        InvalidArgument: with every field that breaks one.
    """
    if request.ByteSize() > _SMALL_BYTES:
        _refuse_long_lists(request)
    violations = _validator().collect_violations(request, fail_fast=True)
    if violations:
        # Each item of a list is looked at, also in one that is far too long: millions of them would hold everybody up.
        if _items(request) <= _ITEMS_LIMIT:
            violations = _validator().collect_violations(request)
        raise _error([described for violation in violations for described in _described(violation)])


def warm_up(request_class: type[message.Message]) -> None:
    """Compile the rules of a message now: milliseconds that its first call would have to wait for."""
    _validator().collect_violations(request_class())


@functools.cache
def _validator() -> protovalidate.Validator:
    # Not with this module: it takes longer to import than all else, and most commands check nothing.
    import protovalidate

    return protovalidate.Validator()


def _refuse_long_lists(request: message.Message) -> None:
    """Refuse lists that are longer than any contract allows before a rule looks at each of their items."""
    violations = [(path, f"must not hold {count} items") for path, count in _lists(request) if count > _ITEMS_LIMIT]
    if violations:
        raise _error(violations)


def _items(request: message.Message) -> int:
    """How many items the lists of a request hold."""
    return sum(count for _, count in _lists(request))


def _lists(request: message.Message, within: str = "") -> Iterator[tuple[str, int]]:
    """The path and the length of each list of a request, those of its messages included."""
    for field, value in request.ListFields():
        if field.is_repeated:
            # Nobody writes the paths of a mask as a field of its own.
            yield (within.rstrip(".") if field.full_name == _MASK_PATHS else within + field.name), len(value)
        elif field.message_type is not None:
            yield from _lists(value, f"{within}{field.name}.")


def _described(violation: protovalidate.Violation) -> list[tuple[str, str]]:
    """The paths of the fields that are concerned, and what is wrong with them."""
    proto = violation.proto
    path = ""
    for element in proto.field.elements if proto.field else ():
        path += f".{element.field_name}" if path else element.field_name
        index = element.subscript
        if index is not None and isinstance(index.value, int):
            path += f"[{index.value}]"
    if path:
        return [(path, proto.message or f"breaks the rule {proto.rule_id}")]
    # A rule over several fields names those to change at the start of its message.
    fields, _, description = proto.message.partition(": ")
    return [(field, description) for field in fields.split(", ")]


def _error(violations: list[tuple[str, str]]) -> errors.InvalidArgument:
    shown = "; ".join(f"{field}: {description}" for field, description in violations[:5])
    more = f"; and {len(violations) - 5} more" if len(violations) > 5 else ""
    return errors.InvalidArgument(errors.Reason.REASON_INVALID_FIELDS, shown + more, violations=violations)
