"""One method of a servicer with everything around it: errors, metrics, identity, admission, access and validation.

This is the interceptor of the suite. It is put around each handler once, when the servicer is registered, and is the
same whether a call comes over a socket or from within the process.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator
from contextlib import aclosing, contextmanager
from typing import TYPE_CHECKING, Any

import grpc
from google.protobuf import descriptor, descriptor_pb2, message, message_factory

from chassis import access, errors, logs, validation
from chassis.access import Access
from chassis.admission import Admission
from chassis.call import Call, current
from chassis.errors import Reason
from chassis.identity import Verifier
from chassis.limits import MutationLimit
from chassis.metrics import MethodMetrics, Metrics
from chassis.replay import Replies

if TYPE_CHECKING:
    from chassis.tracing import Tracer

log = logs.get(__name__)


class Endpoint:
    """A method that can be called.

    Args:
        method: Its descriptor. It must declare who may call it: `access`.
        handler: The servicer's method.
        verifier: Tells who a token belongs to, and whether it may still be acted on.
        admission: Limits the calls under way. None: the method is always let in, health for instance.
        limit: Limits what one caller may change. None: it was counted where the call came in.
        replies: Answers to requests that came before. None: the service keeps none.
        callers: Names of the services that may call it over the network. None: any.
        tracer: Records calls that came in. None: nothing is recorded.

    Attributes:
        stays_open: Whether its streams last as long as their clients like, unless these name a deadline.
    """

    def __init__(
        self,
        method: descriptor.MethodDescriptor,
        handler: Callable[[Any, Any], Any],
        verifier: Verifier,
        metrics: Metrics,
        admission: Admission | None,
        limit: MutationLimit | None = None,
        replies: Replies | None = None,
        callers: frozenset[str] | None = None,
        tracer: Tracer | None = None,
    ) -> None:
        service = method.containing_service.full_name
        self.path = f"/{service}/{method.name}"
        self.streams_requests: bool = method.client_streaming
        self.streams_responses: bool = method.server_streaming
        self.stays_open = False
        self._response_class: type[message.Message] = message_factory.GetMessageClass(method.output_type)
        self._request_class: type[message.Message] = message_factory.GetMessageClass(method.input_type)
        self.access = access.policy(method)
        self.changes = method.GetOptions().idempotency_level != descriptor_pb2.MethodOptions.NO_SIDE_EFFECTS
        self._limit = limit
        # What nobody in particular asks for is told apart by the handler, if at all. Streams are not answered from what
        # is kept: to tell whether one is the same as before all of it would have to be read.
        named = "request_id" in method.input_type.fields_by_name and self.access != Access.ACCESS_PUBLIC
        streams = self.streams_requests or self.streams_responses
        self._replies = replies if named and not streams else None
        self._callers = callers
        self.tracer = tracer
        self._handler = handler
        self._verifier = verifier
        # Who reads an event log waits most of the time, and others rely on its news: busy servers do not turn it away.
        for_services = self.access == Access.ACCESS_SERVICE
        self.admission = Admission(math.inf) if admission is None or for_services else admission
        self._metrics: MethodMetrics = metrics.method(service, method.name)
        validation.warm_up(self._request_class)

    def count_refused(self, code: grpc.StatusCode) -> None:
        """A call was refused before it began."""
        self._metrics.begin()
        self._metrics.end(code, 0.0)

    async def answer(self, request: message.Message | bytes, call: Call) -> message.Message:
        """The response to one request: a message, or bytes that should be one.

        Raises:
            Error: and nothing else but the cancellation of the call.
        """
        handler: Callable[[Any, Call], Awaitable[message.Message]] = self._handler
        current.set(call)
        started = time.perf_counter()
        code = grpc.StatusCode.OK
        error = None
        admitted = False
        self._metrics.begin()
        try:
            _require_time(call)
            self.admission.enter()
            admitted = True
            await self._identify(call)
            request = self.parse(request)
            validation.check(request)
            response = None
            if self._replies is not None:
                response = await self._replies.find(request, self._response_class)
            if response is None:
                response = await handler(request, call)
            if not isinstance(response, self._response_class):
                raise TypeError(f"{self.path} answered a {type(response).__name__}")
            return response
        except BaseException as failure:
            code, error = self._failed(failure)
            if error is None:
                raise
            raise error from None
        finally:
            if admitted:
                self.admission.leave()
            self._metrics.end(code, time.perf_counter() - started)
            if call.span is not None:
                call.span.end(code, error)

    async def answer_stream(self, requests: AsyncIterator[message.Message | bytes], call: Call) -> message.Message:
        """The response to a stream of requests, which the handler need not read to its end.

        Raises:
            Error: and nothing else but the cancellation of the call.
        """
        handler: Callable[[AsyncIterator[Any], Call], Awaitable[message.Message]] = self._handler
        with self._under_way(call):
            await self._identify(call)
            checked = _Requests(self, requests)
            response = await handler(checked, call)
            if checked.refusal is not None:
                # The handler answered all the same.
                raise checked.refusal
            return self._own(response)

    async def stream(
        self, request: AsyncIterator[message.Message | bytes] | message.Message | bytes, call: Call
    ) -> AsyncGenerator[message.Message, None]:
        """The responses of a method that streams them. To be closed by who does not take all.

        Raises:
            Error: and nothing else but the cancellation of the call.
        """
        handler: Callable[[Any, Call], AsyncGenerator[message.Message, None]] = self._handler
        with self._under_way(call):
            await self._identify(call)
            async with aclosing(handler(self._asked(request), call)) as responses:
                async for response in responses:
                    yield self._own(response)

    def _asked(
        self, request: AsyncIterator[message.Message | bytes] | message.Message | bytes
    ) -> AsyncIterator[message.Message] | message.Message:
        if isinstance(request, message.Message | bytes):
            return self.checked(request)
        return _Requests(self, request)

    def checked(self, request: message.Message | bytes) -> message.Message:
        """A request of a stream, or for one, that keeps the rules of the contract.

        Raises:
            InvalidArgument: it does not, or the bytes are no message.
        """
        request = self.parse(request)
        validation.check(request)
        return request

    def parse(self, request: message.Message | bytes) -> message.Message:
        """The message that bytes stand for.

        Raises:
            InvalidArgument: they are no message of the method's request type.
        """
        if not isinstance(request, bytes):
            return request
        try:
            return self._request_class.FromString(request)
        except message.DecodeError:
            name = self._request_class.DESCRIPTOR.full_name
            text = f"the bytes of the request are no {name}; are its strings valid UTF-8?"
            raise errors.InvalidArgument(Reason.REASON_MALFORMED_MESSAGE, text) from None

    @contextmanager
    def _under_way(self, call: Call) -> Iterator[None]:
        """What is around a stream from its beginning to its end: as in `answer`, which does without this for speed."""
        current.set(call)
        started = time.perf_counter()
        code = grpc.StatusCode.OK
        error = None
        admitted = False
        self._metrics.begin()
        try:
            _require_time(call)
            self.admission.enter()
            admitted = True
            yield
        except BaseException as failure:
            code, error = self._failed(failure)
            if error is None:
                raise
            raise error from None
        finally:
            if admitted:
                self.admission.leave()
            self._metrics.end(code, time.perf_counter() - started)
            if call.span is not None:
                call.span.end(code, error)

    def _own(self, response: message.Message) -> message.Message:
        """The response of a stream's handler, if it is one of the method."""
        if not isinstance(response, self._response_class):
            raise TypeError(f"{self.path} answered a {type(response).__name__}")
        return response

    async def _identify(self, call: Call) -> None:
        """Tell who calls, and refuse whom the contract does not admit, and who changes too much."""
        self._require_allowed(call)
        if self.access in access.WITHOUT_TOKEN:
            return
        call.caller = await self._verifier.verify(call.authorization)
        access.admit(self.access, call.caller)
        if self.changes:
            self._verifier.require_news()
            if self._limit is not None:
                self._limit.require(call.caller)

    def _require_allowed(self, call: Call) -> None:
        """Refuse services that have no business here."""
        if self._callers is None or call.peers is None or not self._callers.isdisjoint(call.peers):
            return
        service = self.path.split("/")[1]
        names = " and ".join(sorted(call.peers)) or "no service"
        text = (
            f"the certificate of the caller names {names}, which may not call {service}; its operator lets others in"
            f" with INSTA_ALLOWED_CALLERS={service}=NAME"
        )
        raise errors.PermissionDenied(Reason.REASON_SERVICE_NOT_ALLOWED, text)

    def _failed(self, failure: BaseException) -> tuple[grpc.StatusCode, errors.Error | None]:
        """The code of a call that failed, and the error that its caller receives; None if the call was cancelled."""
        if isinstance(failure, errors.Error):
            log.debug("call refused", code=failure.code.name, reason=failure.reason_name)
            return failure.code, failure
        if isinstance(failure, asyncio.CancelledError | GeneratorExit):
            task = asyncio.current_task()
            if isinstance(failure, GeneratorExit) or task is None or task.cancelling():
                return grpc.StatusCode.CANCELLED, None
            # Something that the handler waited for was cancelled, not the call itself.
            error: errors.Error | None = errors.unavailable()
        elif isinstance(failure, grpc.aio.AioRpcError):
            error = errors.from_downstream(failure)
        elif isinstance(failure, Exception):
            error = None
        else:
            return grpc.StatusCode.UNKNOWN, None
        if error is None:
            log.error("call failed", exc_info=failure)
            text = "a defect of the suite; its log has the details under this call's trace id"
            error = errors.Internal(Reason.REASON_INTERNAL, text)
        return error.code, error


class _Requests(AsyncIterator[message.Message]):
    """The requests of a stream, each checked before the handler has it.

    Nothing comes after one that was refused, or that the handler gave up waiting for: what is left of a stream is never
    taken for all of it.

    Attributes:
        refusal: Of a request, if there was one.
    """

    def __init__(self, endpoint: Endpoint, requests: AsyncIterator[message.Message | bytes]) -> None:
        self.refusal: errors.Error | None = None
        self._endpoint = endpoint
        self._requests = requests
        self._complete = False
        self._gave_up = False

    async def __anext__(self) -> message.Message:
        if self.refusal is not None:
            raise self.refusal
        if self._complete:
            raise StopAsyncIteration
        if self._gave_up:
            raise RuntimeError("nothing comes after a request that was not waited for")
        try:
            return self._endpoint.checked(await anext(self._requests))
        except StopAsyncIteration:
            self._complete = True
            raise
        except errors.Error as refusal:
            self.refusal = refusal
            raise
        except BaseException:
            self._gave_up = True
            raise


def _require_time(call: Call) -> None:
    """Begin nothing whose answer comes too late."""
    if asyncio.get_running_loop().time() >= call.deadline:
        raise errors.deadline_exceeded()
