"""Calls between services: the same in one process and over a socket, for who calls and for who is called."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc
import pytest
import pytest_asyncio
from google.rpc import error_details_pb2, status_pb2

from chassis import errors
from chassis.call import Call, current
from chassis.errors import Reason
from chassis.remote import PATIENCE_SECONDS
from insta.posts.v1 import posts_pb2
from insta.users.v1 import auth_pb2
from tests.chassis.issuer import Issuer
from tests.chassis.peers import MOST_WAITING, Peer, running
from tests.people import failure

REQUEST = posts_pb2.GetPostRequest(post_id=5)
CREATE = posts_pb2.CreatePostRequest(title="First light")
KINDS = ("local", "remote")


@pytest_asyncio.fixture(params=KINDS)
async def peer(request: pytest.FixtureRequest, issuer: Issuer) -> AsyncIterator[Peer]:
    """A service, reached in each of the two ways."""
    async with running(request.param, issuer) as started:
        yield started


@pytest_asyncio.fixture(params=KINDS)
async def back(request: pytest.FixtureRequest, issuer: Issuer) -> AsyncIterator[Peer]:
    """A service that `peer` calls, in each of the two ways."""
    async with running(request.param, issuer) as started:
        yield started


@pytest.fixture
def front(peer: Peer, back: Peer) -> Peer:
    """A service that asks another for its answer."""

    async def ask(request: posts_pb2.GetPostRequest) -> posts_pb2.GetPostResponse:
        return await back.posts.GetPost(request, timeout=30)

    peer.servicer.script = ask
    return peer


def call_under_way() -> Call:
    call = current.get()
    assert call is not None
    return call


def raising(error: BaseException) -> Any:
    async def script(request: Any) -> Any:
        raise error

    return script


class Endless:
    """A script that ends by cancellation only."""

    def __init__(self) -> None:
        self.begun = asyncio.Event()
        self.cancelled = asyncio.Event()

    async def __call__(self, request: Any) -> Any:
        self.begun.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.cancelled.set()
            raise


def unpacked(status: status_pb2.Status) -> list[Any]:
    """What a status says. Packed bytes do not compare: maps have no order."""
    content: list[Any] = [status.code, status.message]
    for detail in status.details:
        for kind in (error_details_pb2.ErrorInfo, error_details_pb2.RetryInfo, error_details_pb2.BadRequest):
            message = kind()
            if detail.Unpack(message):
                content.append(message)
    assert len(content) == 2 + len(status.details)
    return content


def not_found() -> errors.Error:
    return errors.NotFound(Reason.REASON_POST_NOT_FOUND, "there is no such post")


def of_all_details() -> errors.Error:
    return errors.ResourceExhausted(
        Reason.REASON_FOLLOW_LIMIT,
        "text with “quotes”",
        violations=[("first", "is wrong"), ("second[3].third", "is wrong, too")],
        retry_after=1.25,
    )


ERRORS = [
    not_found(),
    of_all_details(),
    errors.invalid_field("title", "is wrong"),
    errors.unavailable(),
    errors.deadline_exceeded(),
    errors.Unauthenticated(Reason.REASON_WRONG_CREDENTIALS, "no"),
    errors.PermissionDenied(Reason.REASON_NOT_OWNER, "no"),
    errors.AlreadyExists(Reason.REASON_EMAIL_TAKEN, "no"),
    errors.FailedPrecondition(Reason.REASON_SELF_FOLLOW, "no"),
]


async def test_a_call_answers(peer: Peer, token: Any) -> None:
    call = peer.posts.GetPost(REQUEST, metadata=token)

    response = await call

    assert response == posts_pb2.GetPostResponse(post=posts_pb2.Post(id=5, title="First light"))
    assert await call.code() is grpc.StatusCode.OK
    assert await call.details() == ""
    assert await call == response


async def test_an_answer_may_be_larger_than_a_client_receives(peer: Peer, token: Any) -> None:
    large = posts_pb2.GetPostResponse(post=posts_pb2.Post(description="a" * 5 * 1024 * 1024))

    async def script(request: Any) -> Any:
        return large

    peer.servicer.script = script

    assert await peer.posts.GetPost(REQUEST, metadata=token) == large


async def test_the_handler_knows_the_caller_and_the_method(peer: Peer, token: Any) -> None:
    async def script(request: Any) -> Any:
        call = call_under_way()
        return posts_pb2.GetPostResponse(post=posts_pb2.Post(author_id=call.caller.user_id, title=call.method))

    peer.servicer.script = script

    post = (await peer.posts.GetPost(REQUEST, metadata=token)).post

    assert (post.author_id, post.title) == (7, "/insta.posts.v1.PostService/GetPost")


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: error.reason_name)
async def test_an_error_arrives_as_it_was_raised(peer: Peer, token: Any, error: errors.Error) -> None:
    peer.servicer.script = raising(error)
    call = peer.posts.CreatePost(CREATE, metadata=token)

    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await call

    assert (raised.value.code(), raised.value.details()) == (error.code, error.text)
    assert (await call.code(), await call.details()) == (error.code, error.text)
    for trailers in (raised.value.trailing_metadata(), await call.trailing_metadata()):
        assert unpacked(status_pb2.Status.FromString(trailers[errors.DETAILS_KEY])) == unpacked(error.status())


async def test_the_trailers_name_the_trace_however_the_call_ends(peer: Peer, token: Any) -> None:
    traces = []

    async def script(request: posts_pb2.GetPostRequest) -> posts_pb2.GetPostResponse:
        traces.append(call_under_way().trace_id)
        if len(traces) > 1:
            raise not_found()
        return posts_pb2.GetPostResponse()

    peer.servicer.script = script
    good = peer.posts.GetPost(REQUEST, metadata=token)
    await good
    bad = peer.posts.GetPost(REQUEST, metadata=token)
    failed = await failure(bad)

    assert (await good.trailing_metadata())["trace-id"] == traces[0]
    assert (await bad.trailing_metadata())["trace-id"] == traces[1]
    assert failed.trace_id == traces[1]


@pytest.mark.parametrize(
    "defect", [ZeroDivisionError("secret"), NotImplementedError("secret"), KeyError("secret")], ids=repr
)
async def test_an_exception_is_internal_and_keeps_its_text_to_itself(peer: Peer, token: Any, defect: Exception) -> None:
    peer.servicer.script = raising(defect)

    failed = await failure(peer.posts.GetPost(REQUEST, metadata=token))

    assert (failed.code, failed.reason) == (grpc.StatusCode.INTERNAL, "INTERNAL")
    assert "secret" not in failed.text


async def test_an_answer_that_is_not_the_methods_is_internal(peer: Peer, token: Any) -> None:
    for answer in (None, "secret", posts_pb2.Post(title="secret")):

        async def script(request: Any, answer: Any = answer) -> Any:
            return answer

        peer.servicer.script = script

        failed = await failure(peer.posts.GetPost(REQUEST, metadata=token))

        assert (failed.code, failed.reason) == (grpc.StatusCode.INTERNAL, "INTERNAL")
        assert "secret" not in failed.text


async def test_a_cancellation_that_is_not_the_calls_own_is_unavailable(peer: Peer, token: Any) -> None:
    peer.servicer.script = raising(asyncio.CancelledError())

    failed = await failure(peer.posts.CreatePost(CREATE, metadata=token))

    assert (failed.code, failed.reason) == (grpc.StatusCode.UNAVAILABLE, "UNAVAILABLE")


@pytest.mark.parametrize("seconds", [0.1, 0])
async def test_a_deadline_ends_the_call_and_its_handler(peer: Peer, token: Any, seconds: float) -> None:
    endless = peer.servicer.script = Endless()
    call = peer.posts.GetPost(REQUEST, metadata=token, timeout=seconds)

    failed = await failure(call)

    assert failed.code is grpc.StatusCode.DEADLINE_EXCEEDED
    assert await call.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    if endless.begun.is_set():
        await asyncio.wait_for(endless.cancelled.wait(), 5)


async def test_a_call_can_be_cancelled(peer: Peer, token: Any) -> None:
    endless = peer.servicer.script = Endless()
    call = peer.posts.GetPost(REQUEST, metadata=token)
    await endless.begun.wait()

    assert call.cancel()

    with pytest.raises(asyncio.CancelledError):
        await call
    assert await call.code() is grpc.StatusCode.CANCELLED
    await asyncio.wait_for(endless.cancelled.wait(), 5)
    assert not call.cancel()


async def test_who_stops_waiting_cancels_the_call(peer: Peer, token: Any) -> None:
    endless = peer.servicer.script = Endless()

    async def wait() -> None:
        await peer.posts.GetPost(REQUEST, metadata=token)

    waiting = asyncio.ensure_future(wait())
    await endless.begun.wait()
    waiting.cancel()

    await asyncio.wait_for(endless.cancelled.wait(), 5)
    with pytest.raises(asyncio.CancelledError):
        await waiting


async def test_a_call_runs_before_it_is_awaited(peer: Peer, token: Any) -> None:
    """Three that wait for each other end only if they run at once."""
    together = asyncio.Barrier(3)

    async def script(request: posts_pb2.GetPostRequest) -> posts_pb2.GetPostResponse:
        await together.wait()
        return posts_pb2.GetPostResponse(post=posts_pb2.Post(id=request.post_id))

    peer.servicer.script = script
    calls = [peer.posts.GetPost(posts_pb2.GetPostRequest(post_id=n), metadata=token, timeout=5) for n in (1, 2, 3)]

    assert [(await call).post.id for call in calls] == [1, 2, 3]


async def test_an_invalid_request_does_not_reach_the_handler(peer: Peer, token: Any) -> None:
    failed = await failure(peer.posts.GetPost(posts_pb2.GetPostRequest(post_id=-1), metadata=token))

    assert (failed.code, failed.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELDS")
    assert failed.fields == ["post_id"]
    assert peer.servicer.requests == []


@pytest.mark.parametrize(
    ("metadata", "reason"),
    [
        ([], "TOKEN_MISSING"),
        ([("authorization", "")], "TOKEN_MISSING"),
        ([("authorization", "Bearer nonsense")], "TOKEN_INVALID"),
        ([("x-user-id", "7"), ("user-id", "7"), ("caller", "7")], "TOKEN_MISSING"),
    ],
)
async def test_who_proves_nothing_does_not_reach_the_handler(peer: Peer, metadata: Any, reason: str) -> None:
    failed = await failure(peer.posts.GetPost(REQUEST, metadata=metadata))

    assert (failed.code, failed.reason) == (grpc.StatusCode.UNAUTHENTICATED, reason)
    assert peer.servicer.requests == []


async def test_only_the_token_tells_who_calls(peer: Peer, token: Any) -> None:
    async def script(request: Any) -> Any:
        return posts_pb2.GetPostResponse(post=posts_pb2.Post(author_id=call_under_way().caller.user_id))

    peer.servicer.script = script
    claimed = [("x-user-id", "1"), ("user-id", "1"), ("user_id", "1"), ("x-forwarded-user", "1")]

    response = await peer.posts.GetPost(REQUEST, metadata=[*claimed, *token])

    assert response.post.author_id == 7


async def test_a_method_for_everybody_looks_at_no_token(peer: Peer, issuer: Issuer) -> None:
    request = auth_pb2.LoginRequest(login="ana", password="correct horse")
    for metadata in ([], [("authorization", "Bearer nonsense")]):
        assert (await peer.auth.Login(request, metadata=metadata)).access_token == "ana"
    assert issuer.fetches == 0


async def test_a_call_to_another_service_is_made_as_the_caller_in_the_same_trace(
    front: Peer, back: Peer, token: Any
) -> None:
    seen: list[Call] = []
    ask = front.servicer.script

    async def script(request: Any) -> Any:
        seen.append(call_under_way())
        response = await ask(request)
        assert current.get() is seen[0]
        return response

    async def last(request: Any) -> Any:
        seen.append(call_under_way())
        return posts_pb2.GetPostResponse()

    front.servicer.script = script
    back.servicer.script = last
    call = front.posts.GetPost(REQUEST, metadata=token)
    await call

    first, second = seen
    assert (second.caller, second.authorization) == (first.caller, first.authorization)
    assert first.caller.user_id == 7
    assert second.trace_id == first.trace_id == (await call.trailing_metadata())["trace-id"]


async def test_another_token_can_be_sent_along(front: Peer, back: Peer, token: Any, issuer: Issuer) -> None:
    async def script(request: Any) -> Any:
        return await back.posts.GetPost(request, metadata=[("authorization", issuer.authorization(8))])

    async def last(request: Any) -> Any:
        return posts_pb2.GetPostResponse(post=posts_pb2.Post(author_id=call_under_way().caller.user_id))

    front.servicer.script = script
    back.servicer.script = last

    assert (await front.posts.GetPost(REQUEST, metadata=token)).post.author_id == 8


async def test_a_call_to_another_service_has_the_time_that_is_left(front: Peer, back: Peer, token: Any) -> None:
    left: list[float] = []

    async def last(request: Any) -> Any:
        left.append(call_under_way().deadline - asyncio.get_running_loop().time())
        return posts_pb2.GetPostResponse()

    back.servicer.script = last
    await front.posts.GetPost(REQUEST, metadata=token, timeout=3)

    # The wire rounds up.
    assert 2 < left[0] < 3.1


async def test_a_deadline_ends_the_calls_to_other_services_too(front: Peer, back: Peer, token: Any) -> None:
    endless = back.servicer.script = Endless()

    failed = await failure(front.posts.GetPost(REQUEST, metadata=token, timeout=0.3))

    assert failed.code is grpc.StatusCode.DEADLINE_EXCEEDED
    await asyncio.wait_for(endless.cancelled.wait(), 5)


async def test_a_deadline_of_the_call_to_another_service_is_told(front: Peer, back: Peer, token: Any) -> None:
    endless = back.servicer.script = Endless()

    async def script(request: Any) -> Any:
        return await back.posts.GetPost(request, timeout=0.1)

    front.servicer.script = script

    failed = await failure(front.posts.GetPost(REQUEST, metadata=token))

    assert (failed.code, failed.reason) == (grpc.StatusCode.DEADLINE_EXCEEDED, "DEADLINE_EXCEEDED")
    await asyncio.wait_for(endless.cancelled.wait(), 5)


async def test_a_cancellation_reaches_the_other_services(front: Peer, back: Peer, token: Any) -> None:
    endless = back.servicer.script = Endless()
    call = front.posts.GetPost(REQUEST, metadata=token)
    await endless.begun.wait()

    call.cancel()

    await asyncio.wait_for(endless.cancelled.wait(), 5)


@pytest.mark.parametrize("error", [not_found(), of_all_details()], ids=lambda error: error.reason_name)
async def test_an_error_of_another_service_is_passed_on(
    front: Peer, back: Peer, token: Any, error: errors.Error
) -> None:
    back.servicer.script = raising(error)

    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await front.posts.GetPost(REQUEST, metadata=token)

    assert (raised.value.code(), raised.value.details()) == (error.code, error.text)
    passed_on = errors.from_downstream(raised.value)
    assert passed_on is not None
    assert unpacked(passed_on.status()) == unpacked(error.status())


async def test_a_defect_of_another_service_is_internal(front: Peer, back: Peer, token: Any) -> None:
    back.servicer.script = raising(ZeroDivisionError("secret"))

    failed = await failure(front.posts.GetPost(REQUEST, metadata=token))

    assert (failed.code, failed.reason) == (grpc.StatusCode.INTERNAL, "INTERNAL")
    assert "secret" not in failed.text


async def test_a_handler_may_do_without_another_service(front: Peer, back: Peer, token: Any) -> None:
    back.servicer.script = raising(not_found())

    async def script(request: Any) -> Any:
        try:
            return await back.posts.GetPost(request)
        except grpc.aio.AioRpcError as failed:
            return posts_pb2.GetPostResponse(post=posts_pb2.Post(title=failed.code().name))

    front.servicer.script = script

    assert (await front.posts.GetPost(REQUEST, metadata=token)).post.title == "NOT_FOUND"


@pytest.mark.parametrize("variable", ["grpc_proxy", "https_proxy", "http_proxy"])
async def test_a_proxy_that_the_environment_names_does_not_come_between(
    variable: str, issuer: Issuer, token: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    # gRPC takes the first of them that there is.
    for before in ("grpc_proxy", "https_proxy"):
        monkeypatch.delenv(before, raising=False)
    monkeypatch.setenv(variable, "http://127.0.0.1:1")
    monkeypatch.setenv("no_grpc_proxy", "")

    async with running("remote", issuer) as peer:
        assert (await peer.posts.GetPost(REQUEST, metadata=token)).post.id == 5


@pytest.mark.parametrize("kind", KINDS)
async def test_a_service_that_is_away_is_unavailable(kind: str, issuer: Issuer, token: Any) -> None:
    async with running(kind, issuer) as front, running("remote", issuer) as back:

        async def ask(request: Any) -> Any:
            return await back.posts.GetPost(request)

        front.servicer.script = ask
        await front.posts.GetPost(REQUEST, metadata=token)
        await back.stop()

        for longest in (10, 2):
            began = time.monotonic()
            failed = await failure(front.posts.CreatePost(CREATE, metadata=token))

            assert (failed.code, failed.reason) == (grpc.StatusCode.UNAVAILABLE, "UNAVAILABLE")
            assert failed.retry_after
            # The first waits a while whether it comes again, and the next ones do without that.
            assert time.monotonic() - began < longest
        async with running("remote", issuer, listen=back.address):
            await answered_at_last(lambda: back.posts.GetPost(REQUEST, metadata=token))


async def test_a_call_waits_for_a_service_that_is_started_again(issuer: Issuer, token: Any) -> None:
    async with running("remote", issuer) as peer:
        await peer.posts.GetPost(REQUEST, metadata=token)
        await peer.stop()
        call = peer.posts.CreatePost(CREATE, metadata=token)
        ended = asyncio.ensure_future(call.code())
        assert await asyncio.wait([ended], timeout=0.3) == (set(), {ended})

        async with running("remote", issuer, listen=peer.address) as again:
            again.servicer.script = created
            assert await call == posts_pb2.CreatePostResponse()
            assert await ended is grpc.StatusCode.OK
            assert "trace-id" in await call.trailing_metadata()


async def test_a_call_that_waits_for_a_service_ends_at_its_deadline(issuer: Issuer, token: Any) -> None:
    async with running("remote", issuer) as peer:
        await peer.stop()

        began = time.monotonic()
        failed = await failure(peer.posts.CreatePost(CREATE, metadata=token, timeout=0.3))

        assert failed.code in (grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.UNAVAILABLE)
        assert time.monotonic() - began < PATIENCE_SECONDS


async def test_only_so_many_calls_wait_for_a_service(issuer: Issuer, token: Any) -> None:
    async with running("remote", issuer) as peer:
        await peer.stop()
        calls = [peer.posts.CreatePost(CREATE, metadata=token, timeout=60) for _ in range(MOST_WAITING + 1)]
        *waiting, last = (asyncio.ensure_future(call.code()) for call in calls)

        ended, _ = await asyncio.wait([last, *waiting], return_when=asyncio.FIRST_COMPLETED)

        assert ended == {last}
        assert await last is grpc.StatusCode.UNAVAILABLE
        for call in calls:
            call.cancel()
        await asyncio.wait(waiting)


async def test_a_call_that_waits_for_a_service_can_be_cancelled(issuer: Issuer, token: Any) -> None:
    async with running("remote", issuer) as peer:
        await peer.stop()
        call = peer.posts.CreatePost(CREATE, metadata=token)

        call.cancel()

        assert await call.code() is grpc.StatusCode.CANCELLED
        with pytest.raises(asyncio.CancelledError):
            await call


@pytest.mark.parametrize("turns", [0, 1, 2])
async def test_a_call_within_the_process_that_is_cancelled_gives_up_what_it_waits_for(
    turns: int, issuer: Issuer, token: Any
) -> None:
    async with running("local", issuer) as peer:
        await peer.posts.GetPost(REQUEST, metadata=token)
        waited_for = asyncio.get_running_loop().create_future()

        async def wait(request: Any) -> Any:
            return await waited_for

        peer.servicer.script = wait
        call = peer.posts.CreatePost(CREATE, metadata=token)
        for _ in range(turns):
            await asyncio.sleep(0)
        call.cancel()

        assert await call.code() is grpc.StatusCode.CANCELLED
        assert waited_for.cancelled()


async def answered_at_last(call: Callable[[], Any]) -> None:
    """Send it until it is answered."""
    async with asyncio.timeout(20):
        while True:
            with contextlib.suppress(grpc.aio.AioRpcError):
                await call()
                return
            await asyncio.sleep(0.02)


async def created(request: Any) -> posts_pb2.CreatePostResponse:
    """A script for `CreatePost`."""
    return posts_pb2.CreatePostResponse()


@pytest.mark.parametrize("code", [grpc.StatusCode.NOT_FOUND, grpc.StatusCode.UNIMPLEMENTED, grpc.StatusCode.UNKNOWN])
async def test_a_failure_that_is_not_of_the_suite_is_internal(peer: Peer, token: Any, code: grpc.StatusCode) -> None:
    foreign = grpc.aio.AioRpcError(code, grpc.aio.Metadata(), grpc.aio.Metadata(), "secret")
    peer.servicer.script = raising(foreign)

    failed = await failure(peer.posts.GetPost(REQUEST, metadata=token))

    assert (failed.code, failed.reason) == (grpc.StatusCode.INTERNAL, "INTERNAL")
    assert "secret" not in failed.text
