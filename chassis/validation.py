"""Checks requests against the rules in their contract (buf.validate), and tells of all violations at once."""

from __future__ import annotations

import protovalidate
from google.protobuf import message

from chassis import errors

_validator = protovalidate.Validator()
# Requests with more items in their lists than this are told their first violation only.
_ITEMS_LIMIT = 1000


def check(request: message.Message) -> None:
    """Let a request pass that keeps all rules.

    Raises:
        InvalidArgument: with every field that breaks one.
    """
    violations = _validator.collect_violations(request, fail_fast=True)
    if violations:
        # Each item of a list is looked at, also in one that is far too long: millions of them would hold everybody up.
        if _items(request) <= _ITEMS_LIMIT:
            violations = _validator.collect_violations(request)
        raise _error([described for violation in violations for described in _described(violation)])


def warm_up(request_class: type[message.Message]) -> None:
    """Compile the rules of a message now: milliseconds that its first call would have to wait for."""
    _validator.collect_violations(request_class())


def _items(request: message.Message) -> int:
    """How many items the lists of a request hold, those of its messages included."""
    count = 0
    for field, value in request.ListFields():
        if field.is_repeated:
            count += len(value)
        elif field.message_type is not None:
            count += _items(value)
    return count


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
