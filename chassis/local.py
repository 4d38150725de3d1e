"""A channel to servicers in the same process: no socket and no serialisation, the same way through the endpoint."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import AsyncIterator, Callable, Coroutine, Generator, Mapping, Sequence
from contextlib import aclosing
from typing import Any

import grpc
from google.protobuf import message

from chassis import errors, streams
from chassis.call import AUTHORIZATION_KEY, NOWHERE, TRACE_KEY, Call, current, new_trace_id
from chassis.endpoint import Endpoint

DEFAULT_TIMEOUT_SECONDS = 10.0
# So many responses of a stream may wait for who reads them, while one more is made.
_RESPONSES_AHEAD = 2


class LocalChannel:
    """What a generated stub needs of a `grpc.aio.Channel`, for methods of which not both sides stream.

    A call takes `timeout` and, of `metadata`, the key `authorization`; without them it passes on the deadline and the
    token of the call under way. What it returns is awaited for its response, or iterated for those of a stream; it can
    be cancelled, and answers `code()`, `details()` and `trailing_metadata()`. It raises what a call over a socket
    would: `AioRpcError`. Compression, credentials and `wait_for_ready` mean nothing here and are not looked at.

    Requests that stream are an async iterator. What that raises cancels the call, and reaches who awaits it. If it is a
    generator, it is closed when the call ends.

    Messages are handed over as they are: neither side may change one afterwards.

    Args:
        endpoints: By path. May be filled after the channel was made.
    """

    def __init__(self, endpoints: Mapping[str, Endpoint]) -> None:
        self._endpoints = endpoints

    def unary_unary(self, method: str, *_: Any, **__: Any) -> _Multicallable:
        return _Multicallable(self._endpoints, method, LocalCall)

    def stream_unary(self, method: str, *_: Any, **__: Any) -> _Multicallable:
        return _Multicallable(self._endpoints, method, LocalRequestStream)

    def unary_stream(self, method: str, *_: Any, **__: Any) -> _Multicallable:
        return _Multicallable(self._endpoints, method, LocalResponseStream)

    async def close(self, grace: float | None = None) -> None:
        """Nothing is open."""


class _Multicallable:
    def __init__(self, endpoints: Mapping[str, Endpoint], method: str, kind: type[Any]) -> None:
        self._endpoints = endpoints
        self._method = method
        self._kind = kind

    def __call__(
        self,
        request: Any,
        *,
        timeout: float | None = None,
        metadata: Sequence[tuple[str, str]] | None = None,
        **_: Any,
    ) -> Any:
        loop = asyncio.get_running_loop()
        parent = current.get()
        deadline = loop.time() + (DEFAULT_TIMEOUT_SECONDS if timeout is None else timeout)
        authorization = ""
        trace_id = traceparent = ""
        origin = NOWHERE
        span = None
        if parent is not None:
            deadline = min(deadline, parent.deadline)
            authorization = parent.authorization
            trace_id = parent.trace_id
            traceparent = parent.traceparent
            origin = parent.origin
            span = parent.span
        for key, value in metadata or ():
            if key == AUTHORIZATION_KEY:
                authorization = value
        call = Call(self._method, authorization, deadline, trace_id or new_trace_id(), origin, traceparent)
        endpoint = self._endpoints[self._method]
        if span is not None and endpoint.tracer is not None:
            endpoint.tracer.receive_from(span, call)
        return self._kind(endpoint, request, call, loop, parent)


class LocalCall:
    """A call that has started; await it for its response.

    It runs at once up to where it waits for something, and most wait for nothing: only then it becomes a task. Until
    then it is part of the task that makes the call, so a servicer must not begin an `asyncio.timeout` or `TaskGroup`
    before it has waited.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        request: message.Message,
        call: Call,
        loop: asyncio.AbstractEventLoop,
        parent: Call | None,
    ) -> None:
        self._call = call
        self._response: message.Message | None = None
        self._error: errors.Error | None = None
        self._task: asyncio.Task[message.Message] | None = None
        answer = endpoint.answer(request, call)
        context = contextvars.copy_context()
        try:
            waits_for = context.run(answer.send, None)
        except StopIteration as done:
            self._response = done.value
        except errors.Error as error:
            self._error = error
        else:
            self._task = loop.create_task(_Begun(answer, waits_for), context=context)
            # One that may last as long as the call that makes it ends with that.
            limited = parent is None or call.deadline < parent.deadline
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
        return _trailers(self._call, self._error)

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


class _LocalStream:
    """A call of which one side streams: a task from its beginning on, for streams wait anyway."""

    def __init__(
        self, answer: Coroutine[Any, Any, message.Message | None], call: Call, loop: asyncio.AbstractEventLoop
    ) -> None:
        self._call = call
        self._task = loop.create_task(answer)
        self._task.add_done_callback(_seen)

    def cancel(self) -> bool:
        return self._task.cancel()

    async def code(self) -> grpc.StatusCode:
        error = await self._end()
        if error is not None:
            return error.code
        return grpc.StatusCode.CANCELLED if self._task.cancelled() else grpc.StatusCode.OK

    async def details(self) -> str:
        error = await self._end()
        return error.text if error is not None else ""

    async def trailing_metadata(self) -> grpc.aio.Metadata:
        return _trailers(self._call, await self._end())

    async def _end(self) -> errors.Error | None:
        await asyncio.wait([self._task])
        failure = None if self._task.cancelled() else self._task.exception()
        return failure if isinstance(failure, errors.Error) else None


class LocalRequestStream(_LocalStream):
    """A call with a stream of requests; await it for its response.

    The handler takes each request from the caller's iterator itself, so none is made before it is asked for.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        requests: AsyncIterator[message.Message],
        call: Call,
        loop: asyncio.AbstractEventLoop,
        parent: Call | None,
    ) -> None:
        self._failure: BaseException | None = None
        super().__init__(self._answer(endpoint, aiter(requests), call, parent), call, loop)

    def __await__(self) -> Generator[Any, None, message.Message]:
        try:
            response = yield from self._task.__await__()
        except errors.Error as error:
            raise errors.LocalRpcError(error, self._call.trace_id) from None
        except asyncio.CancelledError:
            if self._failure is None or streams.being_cancelled():
                raise
            raise self._failure from None
        assert response is not None
        return response

    async def _answer(
        self, endpoint: Endpoint, requests: AsyncIterator[message.Message], call: Call, parent: Call | None
    ) -> message.Message:
        try:
            async with asyncio.timeout_at(call.deadline):
                return await endpoint.answer_stream(_Requests(requests, parent, call, self._fail), call)
        except TimeoutError:
            raise errors.deadline_exceeded() from None
        finally:
            current.set(parent)
            await streams.close(requests)

    def _fail(self, failure: BaseException) -> None:
        """The caller's iterator raised."""
        self._failure = failure
        self._task.cancel()


class _Requests(AsyncIterator[message.Message]):
    """What a caller streams, as its handler sees it: all the caller's code runs as part of the caller's own call."""

    def __init__(
        self,
        requests: AsyncIterator[message.Message],
        parent: Call | None,
        call: Call,
        fail: Callable[[BaseException], None],
    ) -> None:
        self._requests = requests
        self._parent = parent
        self._call = call
        self._fail = fail

    async def __anext__(self) -> message.Message:
        current.set(self._parent)
        try:
            return await anext(self._requests)
        except StopAsyncIteration:
            raise
        except (Exception, asyncio.CancelledError) as failure:
            if streams.being_cancelled():
                raise
            self._fail(failure)
        finally:
            current.set(self._call)
        # As over a socket the handler is cancelled, and does not learn why.
        never: asyncio.Future[message.Message] = asyncio.get_running_loop().create_future()
        return await never


class LocalResponseStream(_LocalStream):
    """A call with a stream of responses; iterate over it.

    Who no longer has it has cancelled it: nothing here may hold it but its caller.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        request: message.Message,
        call: Call,
        loop: asyncio.AbstractEventLoop,
        parent: Call | None,
    ) -> None:
        responses: asyncio.Queue[message.Message | None] = asyncio.Queue()
        self._responses = responses
        self._room = asyncio.Semaphore(_RESPONSES_AHEAD)
        self._cancelled = False
        super().__init__(_put_each(endpoint, request, call, self._responses, self._room), call, loop)
        self._task.add_done_callback(lambda _: responses.put_nowait(None))

    def __del__(self) -> None:
        self._task.cancel()

    def __aiter__(self) -> LocalResponseStream:
        return self

    async def __anext__(self) -> message.Message:
        if self._cancelled:
            raise asyncio.CancelledError
        try:
            response = await self._responses.get()
        except asyncio.CancelledError:
            self.cancel()
            raise
        if response is not None:
            self._room.release()
            return response
        # Who asks again is told the same.
        self._responses.put_nowait(None)
        error = await self._end()
        if error is not None:
            raise errors.LocalRpcError(error, self._call.trace_id)
        if self._task.cancelled():
            raise asyncio.CancelledError
        raise StopAsyncIteration

    def cancel(self) -> bool:
        if not self._task.cancel():
            return False
        self._cancelled = True
        return True


async def _put_each(
    endpoint: Endpoint,
    request: message.Message,
    call: Call,
    responses: asyncio.Queue[message.Message | None],
    room: asyncio.Semaphore,
) -> None:
    try:
        async with asyncio.timeout_at(call.deadline), aclosing(endpoint.stream(request, call)) as stream:
            async for response in stream:
                await room.acquire()
                responses.put_nowait(response)
    except TimeoutError:
        raise errors.deadline_exceeded() from None


def _seen(task: asyncio.Task[Any]) -> None:
    """Callers may drop their calls: that one failed is then nobody's business."""
    if not task.cancelled():
        task.exception()


def _trailers(call: Call, error: errors.Error | None) -> grpc.aio.Metadata:
    trailers = grpc.aio.Metadata((TRACE_KEY, call.trace_id))
    if error is not None:
        trailers.add(errors.DETAILS_KEY, error.status().SerializeToString())
    return trailers
