"""Calls that no server takes: tests of one function are under way as one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from chassis.call import Call, Caller, current


@contextmanager
def called_by(user_id: int) -> Iterator[None]:
    """What happens in here is a call of this user."""
    call = Call("/test", "", float("inf"), "0" * 32)
    call.caller = Caller(user_id=user_id)
    token = current.set(call)
    try:
        yield
    finally:
        current.reset(token)
