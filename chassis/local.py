"""A channel to servicers in the same process: no socket and no serialisation, the same way through the endpoint."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Coroutine, Generator, Mapping, Sequence
from typing import Any

import grpc
from google.protobuf import message

from chassis import errors
from chassis.call import AUTHORIZATION_KEY, NOWHERE, TRACE_KEY, Call, current, new_trace_id
from chassis.endpoint import Endpoint

DEFAULT_TIMEOUT_SECONDS = 10.0


class LocalChannel:
    """What a generated stub needs of a `grpc.aio.Channel`, for methods with one request and one response.

    A call takes `timeout` and, of `metadata`, the key `authorization`; without them it passes on the deadline and the
    token of the call under way. What it returns can be awaited and cancelled, and answers `code()`, `details()` and
    `trailing_metadata()`. It raises what a call over a socket would: `AioRpcError`. Compression, credentials and
    `wait_for_ready` mean nothing here and are not looked at.

    Messages are handed over as they are: neither side may change one afterwards.

    Args:
        endpoints: By path. May be filled after the channel was made.
    """

    def __init__(self, endpoints: Mapping[str, Endpoint]) -> None:
        self._endpoints = endpoints

    def unary_unary(self, method: str, *_: Any, **__: Any) -> _UnaryUnary:
        return _UnaryUnary(self._endpoints, method)

    async def close(self, grace: float | None = None) -> None:
        """Nothing is open."""


class _UnaryUnary:
    def __init__(self, endpoints: Mapping[str, Endpoint], method: str) -> None:
        self._endpoints = endpoints
        self._method = method

    def __call__(
        self,
        request: message.Message,
        *,
        timeout: float | None = None,
        metadata: Sequence[tuple[str, str]] | None = None,
        **_: Any,
    ) -> LocalCall:
        loop = asyncio.get_running_loop()
        parent = current.get()
        deadline = loop.time() + (DEFAULT_TIMEOUT_SECONDS if timeout is None else timeout)
        authorization = ""
        trace_id = ""
        origin = NOWHERE
        if parent is not None:
            deadline = min(deadline, parent.deadline)
            authorization = parent.authorization
            trace_id = parent.trace_id
            origin = parent.origin
        for key, value in metadata or ():
            if key == AUTHORIZATION_KEY:
                authorization = value
        call = Call(self._method, authorization, deadline, trace_id or new_trace_id(), origin)
        # One that may last as long as the call that makes it ends with that.
        limited = parent is None or deadline < parent.deadline
        return LocalCall(self._endpoints[self._method].answer(request, call), call, loop, limited)


class LocalCall:
    """A call that has started; await it for its response.

    It runs at once up to where it waits for something, and most wait for nothing: only then it becomes a task. Until
    then it is part of the task that makes the call, so a servicer must not begin an `asyncio.timeout` or `TaskGroup`
    before it has waited.
    """

    def __init__(
        self,
        answer: Coroutine[Any, Any, message.Message],
        call: Call,
        loop: asyncio.AbstractEventLoop,
        limited: bool,
    ) -> None:
        self._call = call
        self._response: message.Message | None = None
        self._error: errors.Error | None = None
        self._task: asyncio.Task[message.Message] | None = None
        context = contextvars.copy_context()
        try:
            waits_for = context.run(answer.send, None)
        except StopIteration as done:
            self._response = done.value
        except errors.Error as error:
            self._error = error
        else:
            self._task = loop.create_task(_Begun(answer, waits_for), context=context)
            self._timer = loop.call_at(call.deadline, self._expire) if limited else None
            self._task.add_done_callback(self._finish)

    def __await__(self) -> Generator[Any, None, message.Message]:
        if self._response is not None:
            return self._response
        try:
            if self._task is not None:
                return (yield from self._task.__await__())
        except errors.Error as error:
            raise errors.LocalRpcError(error, self._call.trace_id) from None
        except asyncio.CancelledError:
            if self._error is None:
                raise
        assert self._error is not None
        raise errors.LocalRpcError(self._error, self._call.trace_id) from None

    def cancel(self) -> bool:
        return self._task is not None and self._task.cancel()

    async def code(self) -> grpc.StatusCode:
        await self._end()
        if self._error is not None:
            return self._error.code
        return grpc.StatusCode.OK if self._response is not None else grpc.StatusCode.CANCELLED

    async def details(self) -> str:
        await self._end()
        return self._error.text if self._error is not None else ""

    async def trailing_metadata(self) -> grpc.aio.Metadata:
        await self._end()
        trailers = grpc.aio.Metadata((TRACE_KEY, self._call.trace_id))
        if self._error is not None:
            trailers.add(errors.DETAILS_KEY, self._error.status().SerializeToString())
        return trailers

    async def _end(self) -> None:
        if self._task is not None:
            await asyncio.wait([self._task])

    def _expire(self) -> None:
        assert self._task is not None
        self._error = errors.deadline_exceeded()
        self._task.cancel()

    def _finish(self, task: asyncio.Task[message.Message]) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if task.cancelled():
            return
        # Also marks the exception as seen: a caller may cancel its calls without awaiting them.
        failure = task.exception()
        self._error = failure if isinstance(failure, errors.Error) else None
        if failure is None:
            self._response = task.result()


class _Begun(Coroutine[Any, Any, message.Message]):
    """The rest of a coroutine that waits for something."""

    def __init__(self, coroutine: Coroutine[Any, Any, message.Message], waits_for: Any) -> None:
        self._coroutine = coroutine
        self._waits_for = waits_for
        self._handed_on = False

    def send(self, value: Any) -> Any:
        if self._handed_on:
            return self._coroutine.send(value)
        self._handed_on = True
        if asyncio.isfuture(self._waits_for):
            # As its `__await__` left it: another task that waits for it, too, has reset this.
            self._waits_for._asyncio_future_blocking = True
        return self._waits_for

    def throw(self, *failure: Any) -> Any:
        if not self._handed_on:
            # Cancelled before its task began: a task would have cancelled what it waits for.
            self._handed_on = True
            if asyncio.isfuture(self._waits_for):
                self._waits_for.cancel()
        return self._coroutine.throw(*failure)

    def close(self) -> None:
        self._coroutine.close()

    def __await__(self) -> Generator[Any, None, message.Message]:
        raise TypeError("it is for a task")
