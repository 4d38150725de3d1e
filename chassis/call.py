"""The call under way: who makes it, until when, and the trace that it belongs to."""

from __future__ import annotations

import contextvars
import copy
import math
import random
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    # Only where traces are recorded it is imported.
    from chassis.tracing import CallSpan

TRACE_KEY = "trace-id"
TRACEPARENT_KEY = "traceparent"
TRACESTATE_KEY = "tracestate"
AUTHORIZATION_KEY = "authorization"
# What the gateway tells the services behind it of its own caller.
CLIENT_ADDRESS_KEY = "insta-client-address"
CLIENT_AGENT_KEY = "insta-client-agent"
_TRACEPARENT = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")


@dataclass(frozen=True, slots=True)
class Caller:
    """Who makes a call, as a verified token says."""

    user_id: int
    staff: bool = False
    superuser: bool = False
    session_id: str = ""


NOBODY = Caller(user_id=0)


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a call came into the suite from.

    Attributes:
        address: The client's IP address. Empty if the call was made within the suite.
        user_agent: What its client calls itself; nothing vouches for it.
    """

    address: str = ""
    user_agent: str = ""


NOWHERE = Origin()


class Call:
    """One call on its way through a service.

    Attributes:
        method: Its full name, /insta.posts.v1.PostService/GetPost.
        authorization: The metadata of that name, passed on to other services; empty if there was none.
        deadline: The time of the event loop at which it ends.
        trace_id: 32 hexadecimal digits (W3C Trace Context), the same in every service that takes part.
        traceparent: As it came with the call, to be passed on by who records nothing; empty if none came.
        caller: Who makes it; nobody until its token was verified, and in methods that take none.
        origin: Where it came from, if it may change something; nowhere, if it only reads.
        peers: The names of the service that makes it, as its certificate proves. None: it came from within the process,
            or to a server that asks for no certificate.
        span: What is recorded of it. None: nothing.
    """

    __slots__ = (
        "authorization",
        "caller",
        "deadline",
        "method",
        "origin",
        "peers",
        "span",
        "trace_id",
        "traceparent",
    )

    def __init__(
        self,
        method: str,
        authorization: str,
        deadline: float,
        trace_id: str,
        origin: Origin = NOWHERE,
        traceparent: str = "",
    ) -> None:
        self.method = method
        self.authorization = authorization
        self.deadline = deadline
        self.trace_id = trace_id
        self.traceparent = traceparent
        self.caller = NOBODY
        self.origin = origin
        self.peers: frozenset[str] | None = None
        self.span: CallSpan | None = None


current: contextvars.ContextVar[Call | None] = contextvars.ContextVar("call", default=None)


def caller() -> Caller:
    """Who makes the call under way."""
    call = current.get()
    return NOBODY if call is None else call.caller


def origin() -> Origin:
    """Where the call under way came from."""
    call = current.get()
    return NOWHERE if call is None else call.origin


def lasting() -> contextvars.Context:
    """The context of work that goes on though the call under way is over: the same call, without a deadline."""
    context = contextvars.copy_context()
    call = current.get()
    if call is not None:
        unhurried = copy.copy(call)
        unhurried.deadline = math.inf
        context.run(current.set, unhurried)
    return context


def log_context() -> dict[str, str | int]:
    """What every log line says of the call under way."""
    call = current.get()
    if call is None:
        return {}
    return {"trace_id": call.trace_id, "method": call.method, "caller": call.caller.user_id}


def new_trace_id() -> str:
    """A trace id for a call that brought none."""
    return f"{random.getrandbits(128) or 1:032x}"


def trace_of(traceparent: str) -> tuple[str, str]:
    """The trace id that the metadata `traceparent` of a call names, and the metadata itself.

    A new id and nothing if it names none.
    """
    match = _TRACEPARENT.fullmatch(traceparent)
    return (match[1], traceparent) if match else (new_trace_id(), "")


def unrecorded(trace_id: str) -> str:
    """The metadata that carries to another service the id of a trace of which nothing is recorded."""
    return f"00-{trace_id}-{random.getrandbits(64) or 1:016x}-00"
