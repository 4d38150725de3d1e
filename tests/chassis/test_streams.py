"""Streams of requests or responses: the same in one process and over a socket, for who calls and for who is called."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
import pytest_asyncio
from grpc_health.v1 import health_pb2, health_pb2_grpc

from chassis import errors, server
from chassis.call import Call, current
from chassis.errors import Reason
from chassis.limits import MutationLimit
from tests.chassis.issuer import Issuer
from tests.chassis.media import CONTRACT, Chunk, MediaPeer, MediaStub, media_running
from tests.people import failure, refused_soon, until

KINDS = ("local", "remote")
# To a service, and from there to another: as the suite runs apart, together, and within one process.
WAYS = (("remote", "remote"), ("remote", "local"), ("local", "local"))
# So many chunks of 64 KB may be ahead of who takes them slowly. The buffers of a connection hold some megabytes.
MOST_AHEAD = {"local": 4, "remote": 300}
DATA = bytes(64 * 1024)
# Channels to one address would share a connection.
LONE = [("grpc.use_local_subchannel_pool", 1)]


@pytest_asyncio.fixture(autouse=True)
async def nothing_is_left() -> AsyncIterator[None]:
    """No test leaves a task behind."""
    before = asyncio.all_tasks()
    yield

    async def left() -> set[str]:
        return {repr(task) for task in asyncio.all_tasks() - before - {asyncio.current_task()}}

    await until(left, set(), seconds=10)


@pytest.fixture
def issuer() -> Issuer:
    return Issuer()


@pytest.fixture
def token(issuer: Issuer) -> list[tuple[str, str]]:
    """The metadata of a call by user 7."""
    return [("authorization", issuer.authorization(7))]


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    """Of the channel to `peer`."""
    return str(request.param)


@pytest_asyncio.fixture
async def peer(kind: str, issuer: Issuer) -> AsyncIterator[MediaPeer]:
    """A service, reached in each of the two ways."""
    async with media_running(kind, issuer) as started:
        yield started


@pytest_asyncio.fixture(params=WAYS, ids="-".join)
async def back_and_front(request: pytest.FixtureRequest, issuer: Issuer) -> AsyncIterator[tuple[MediaPeer, MediaPeer]]:
    to_front, to_back = request.param
    async with media_running(to_back, issuer) as back, media_running(to_front, issuer) as front:

        async def upload(requests: AsyncIterator[Any]) -> Any:
            return await back.media.UploadMedia(requests, timeout=30)

        async def download(request: Any) -> AsyncIterator[Any]:
            async for chunk in back.media.DownloadMedia(request, timeout=30):
                yield chunk

        front.servicer.upload = upload
        front.servicer.download = download
        yield back, front


@pytest.fixture
def back(back_and_front: tuple[MediaPeer, MediaPeer]) -> MediaPeer:
    """A service that `front` calls."""
    return back_and_front[0]


@pytest.fixture
def front(back_and_front: tuple[MediaPeer, MediaPeer]) -> MediaPeer:
    """A service that passes streams on to another, and its responses back."""
    return back_and_front[1]


class Numbers:
    """A caller's stream of requests: as many as wanted, or without end.

    Attributes:
        made: How many it was asked for.
        closed: Whether it knows that it is not asked for more.
    """

    def __init__(self, count: int | None = None, data: bytes = b"", failure: BaseException | None = None) -> None:
        self.made = 0
        self.closed = asyncio.Event()
        self._count = count
        self._data = data
        self._failure = failure

    async def __call__(self) -> AsyncIterator[Any]:
        try:
            for number in itertools.count():
                if number == self._count:
                    break
                self.made += 1
                yield Chunk(number=number, data=self._data)
                if number % 16 == 0:
                    await asyncio.sleep(0)
            if self._failure is not None:
                raise self._failure
        finally:
            self.closed.set()


async def chunks(*numbers: int) -> AsyncIterator[Any]:
    """A caller's stream of requests."""
    for number in numbers:
        yield Chunk(number=number)


async def chunks_and_silence(*numbers: int) -> AsyncIterator[Any]:
    """One that never ends."""
    for number in numbers:
        yield Chunk(number=number)
    await asyncio.Event().wait()


async def endless(request: Any) -> AsyncIterator[Any]:
    """A stream of responses that never ends."""
    for number in itertools.count():
        yield Chunk(number=number)
        await asyncio.sleep(0)


async def silent(request: Any) -> AsyncIterator[Any]:
    """One that never ends, after two responses."""
    yield Chunk(number=0)
    yield Chunk(number=1)
    await asyncio.Event().wait()


async def all_of(call: Any) -> list[int]:
    """The numbers of a stream of responses."""
    return [chunk.number async for chunk in call]


def begin(peer: MediaPeer, method: str, requests: AsyncIterator[Any] | None = None, **options: Any) -> Any:
    """Begin a call that does not end by itself."""
    if method == "UploadMedia":
        return peer.media.UploadMedia(chunks_and_silence(0, 1) if requests is None else requests, **options)
    peer.servicer.download = silent
    return peer.media.DownloadMedia(Chunk(), **options)


async def outcome(call: Any) -> Any:
    """The end of a call of either kind."""
    return await (all_of(call) if hasattr(call, "__aiter__") else call)


async def nothing_is_under_way(peer: MediaPeer) -> None:
    async def in_flight() -> tuple[float | None, int]:
        return peer.in_flight()

    await until(in_flight, (0, 0))


async def ended(peer: MediaPeer, how: list[str]) -> None:
    """Wait until the handlers have ended, in these ways."""

    async def ends() -> list[str]:
        return peer.servicer.ended

    await until(ends, how)


def call_under_way() -> Call:
    call = current.get()
    assert call is not None
    return call


def not_found() -> errors.Error:
    return errors.NotFound(Reason.REASON_POST_NOT_FOUND, "there is no such post", violations=[("post_id", "is wrong")])


METHODS = pytest.mark.parametrize("method", ["UploadMedia", "DownloadMedia"])


async def test_a_stream_of_requests_arrives_whole_and_in_order(peer: MediaPeer, token: Any) -> None:
    numbers = Numbers(1000)
    call = peer.media.UploadMedia(numbers(), metadata=token)

    assert await call == Chunk(number=1000)

    assert peer.servicer.taken == list(range(1000))
    assert (await call.code(), await call.details()) == (grpc.StatusCode.OK, "")
    assert len((await call.trailing_metadata())["trace-id"]) == 32
    assert await call == Chunk(number=1000)
    assert numbers.closed.is_set()
    assert not call.cancel()
    await nothing_is_under_way(peer)
    assert peer.counted("UploadMedia", "OK") == 1


async def test_a_stream_of_responses_arrives_whole_and_in_order(peer: MediaPeer, token: Any) -> None:
    call = peer.media.DownloadMedia(Chunk(number=1000), metadata=token)

    assert await all_of(call) == list(range(1000))

    assert (await call.code(), await call.details()) == (grpc.StatusCode.OK, "")
    assert len((await call.trailing_metadata())["trace-id"]) == 32
    assert await all_of(call) == []
    assert not call.cancel()
    await nothing_is_under_way(peer)
    assert peer.counted("DownloadMedia", "OK") == 1


async def test_a_stream_may_be_empty(peer: MediaPeer, token: Any) -> None:
    assert await peer.media.UploadMedia(chunks(), metadata=token) == Chunk(number=0)
    assert await all_of(peer.media.DownloadMedia(Chunk(), metadata=token)) == []


async def test_the_handler_knows_the_caller_and_the_method(peer: MediaPeer, token: Any) -> None:
    seen: list[tuple[int, str]] = []

    async def upload(requests: AsyncIterator[Any]) -> Any:
        seen.append((call_under_way().caller.user_id, call_under_way().method))
        return await peer.servicer.count(requests)

    async def download(request: Any) -> AsyncIterator[Any]:
        yield Chunk()
        seen.append((call_under_way().caller.user_id, call_under_way().method))

    peer.servicer.upload = upload
    peer.servicer.download = download
    await peer.media.UploadMedia(chunks(1), metadata=token)
    await all_of(peer.media.DownloadMedia(Chunk(), metadata=token))

    assert seen == [(7, f"/{CONTRACT}/UploadMedia"), (7, f"/{CONTRACT}/DownloadMedia")]


async def test_an_invalid_request_within_a_stream_ends_it(peer: MediaPeer, token: Any) -> None:
    failed = await failure(peer.media.UploadMedia(chunks_and_silence(0, 1, -1, 3), metadata=token))

    assert (failed.code, failed.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELDS")
    assert failed.fields == ["number"]
    assert len(failed.trace_id) == 32
    assert peer.servicer.taken == [0, 1]
    await nothing_is_under_way(peer)
    assert peer.counted("UploadMedia", "INVALID_ARGUMENT") == 1


async def test_a_handler_that_goes_on_after_an_invalid_request_gets_no_other_and_answers_nothing(
    peer: MediaPeer, token: Any
) -> None:
    async def upload(requests: AsyncIterator[Any]) -> Any:
        for _ in range(5):
            try:
                peer.servicer.taken.append((await anext(requests)).number)
            except errors.InvalidArgument:
                continue
        return Chunk()

    peer.servicer.upload = upload

    failed = await failure(peer.media.UploadMedia(chunks(0, -1, 2, 3, 4), metadata=token))

    assert (failed.code, failed.fields) == (grpc.StatusCode.INVALID_ARGUMENT, ["number"])
    assert peer.servicer.taken == [0]


async def test_a_handler_that_gave_up_waiting_for_a_request_does_not_take_the_stream_for_complete(
    peer: MediaPeer, token: Any
) -> None:
    async def upload(requests: AsyncIterator[Any]) -> Any:
        await anext(requests)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.05):
                await anext(requests)
        return await peer.servicer.count(requests)

    peer.servicer.upload = upload

    failed = await failure(peer.media.UploadMedia(chunks_and_silence(0), metadata=token))

    assert failed.code is grpc.StatusCode.INTERNAL
    await nothing_is_under_way(peer)


async def test_an_invalid_request_for_a_stream_does_not_reach_the_handler(peer: MediaPeer, token: Any) -> None:
    failed = await failure(all_of(peer.media.DownloadMedia(Chunk(number=-1), metadata=token)))

    assert (failed.code, failed.fields) == (grpc.StatusCode.INVALID_ARGUMENT, ["number"])
    assert peer.servicer.ended == []


async def test_bytes_that_are_no_message_end_a_stream(issuer: Issuer, token: Any) -> None:
    async with media_running("remote", issuer) as peer, grpc.aio.insecure_channel(peer.address, LONE) as channel:
        upload = channel.stream_unary(f"/{CONTRACT}/UploadMedia")
        sent = iter([Chunk(number=1).SerializeToString(), b"\xff"])
        failed = await failure(upload(sent, metadata=token, timeout=10))
        download = channel.unary_stream(f"/{CONTRACT}/DownloadMedia")
        refused = await failure(all_of(download(b"\xff", metadata=token, timeout=10)))

    for each in (failed, refused):
        assert (each.code, each.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "MALFORMED_MESSAGE")
    assert peer.servicer.taken == [1]


async def test_an_error_half_way_of_a_stream_of_requests_arrives_as_it_was_raised(peer: MediaPeer, token: Any) -> None:
    async def upload(requests: AsyncIterator[Any]) -> Any:
        await anext(requests)
        await anext(requests)
        raise not_found()

    peer.servicer.upload = upload
    numbers = Numbers()
    call = peer.media.UploadMedia(numbers(), metadata=token)

    failed = await failure(call)

    assert (failed.code, failed.reason) == (grpc.StatusCode.NOT_FOUND, "POST_NOT_FOUND")
    assert failed.fields == ["post_id"]
    assert (await call.code(), await call.details()) == (failed.code, failed.text)
    assert (await call.trailing_metadata())["trace-id"] == failed.trace_id
    assert numbers.closed.is_set()
    await nothing_is_under_way(peer)


async def test_an_error_half_way_of_a_stream_of_responses_arrives_after_those_before_it(
    peer: MediaPeer, token: Any
) -> None:
    async def download(request: Any) -> AsyncIterator[Any]:
        for number in range(5):
            yield Chunk(number=number)
        raise not_found()

    peer.servicer.download = download
    call = peer.media.DownloadMedia(Chunk(), metadata=token)
    arrived = [(await anext(call)).number for _ in range(5)]

    failed = await failure(anext(call))

    assert arrived == [0, 1, 2, 3, 4]
    assert (failed.code, failed.reason) == (grpc.StatusCode.NOT_FOUND, "POST_NOT_FOUND")
    assert failed.fields == ["post_id"]
    assert (await call.code(), await call.details()) == (failed.code, failed.text)
    assert (await call.trailing_metadata())["trace-id"] == failed.trace_id
    assert (await failure(anext(call))).code is failed.code
    await nothing_is_under_way(peer)


async def test_a_defect_is_internal_and_keeps_its_text_to_itself(peer: MediaPeer, token: Any) -> None:
    async def upload(requests: AsyncIterator[Any]) -> Any:
        raise ZeroDivisionError("secret")

    async def download(request: Any) -> AsyncIterator[Any]:
        yield Chunk()
        yield "secret"

    peer.servicer.upload = upload
    peer.servicer.download = download

    for failed in (
        await failure(peer.media.UploadMedia(chunks(1), metadata=token)),
        await failure(all_of(peer.media.DownloadMedia(Chunk(), metadata=token))),
    ):
        assert (failed.code, failed.reason) == (grpc.StatusCode.INTERNAL, "INTERNAL")
        assert "secret" not in failed.text


async def test_an_answer_to_a_stream_that_is_not_the_methods_is_internal(peer: MediaPeer, token: Any) -> None:
    async def upload(requests: AsyncIterator[Any]) -> Any:
        return "secret"

    peer.servicer.upload = upload

    failed = await failure(peer.media.UploadMedia(chunks(1), metadata=token))

    assert (failed.code, failed.reason) == (grpc.StatusCode.INTERNAL, "INTERNAL")
    assert "secret" not in failed.text


@METHODS
@pytest.mark.parametrize(
    ("metadata", "reason"), [([], "TOKEN_MISSING"), ([("authorization", "Bearer nonsense")], "TOKEN_INVALID")]
)
async def test_who_proves_nothing_does_not_reach_the_handler(
    peer: MediaPeer, method: str, metadata: Any, reason: str
) -> None:
    failed = await failure(outcome(begin(peer, method, metadata=metadata)))

    assert (failed.code, failed.reason) == (grpc.StatusCode.UNAUTHENTICATED, reason)
    assert len(failed.trace_id) == 32
    assert peer.servicer.begun.locked()


async def test_methods_for_staff_are_for_staff(peer: MediaPeer, issuer: Issuer, token: Any) -> None:
    staff = [("authorization", issuer.authorization(8, "staff"))]

    for failed in (
        await failure(peer.media.ImportMedia(chunks(1), metadata=token)),
        await failure(all_of(peer.media.ExportMedia(Chunk(number=1), metadata=token))),
    ):
        assert (failed.code, failed.reason) == (grpc.StatusCode.PERMISSION_DENIED, "STAFF_ONLY")
    assert peer.servicer.begun.locked()
    assert await peer.media.ImportMedia(chunks(1), metadata=staff) == Chunk(number=1)
    assert await all_of(peer.media.ExportMedia(Chunk(number=1), metadata=staff)) == [0]


@METHODS
async def test_a_call_that_is_cancelled_half_way_ends_its_handler(peer: MediaPeer, token: Any, method: str) -> None:
    numbers = Numbers()
    call = begin(peer, method, numbers(), metadata=token)
    await peer.servicer.begun.acquire()
    if method == "DownloadMedia":
        await anext(call)
    assert peer.in_flight() == (1, 1)

    assert call.cancel()

    with pytest.raises(asyncio.CancelledError):
        await outcome(call)
    assert await call.code() is grpc.StatusCode.CANCELLED
    await ended(peer, ["cancelled"])
    await nothing_is_under_way(peer)
    assert peer.counted(method, "CANCELLED") == 1
    assert not call.cancel()
    if method == "UploadMedia":
        await asyncio.wait_for(numbers.closed.wait(), 5)


@METHODS
async def test_a_call_that_is_cancelled_at_once_is_not_answered(peer: MediaPeer, token: Any, method: str) -> None:
    call = begin(peer, method, metadata=token)

    call.cancel()

    with pytest.raises(asyncio.CancelledError):
        await outcome(call)
    assert await call.code() is grpc.StatusCode.CANCELLED
    await nothing_is_under_way(peer)


@METHODS
async def test_who_stops_waiting_cancels_the_call(peer: MediaPeer, token: Any, method: str) -> None:
    waiting = asyncio.ensure_future(outcome(begin(peer, method, metadata=token)))
    await peer.servicer.begun.acquire()

    waiting.cancel()

    with pytest.raises(asyncio.CancelledError):
        await waiting
    await ended(peer, ["cancelled"])
    await nothing_is_under_way(peer)


async def test_who_drops_a_stream_of_responses_cancels_the_call(peer: MediaPeer, token: Any) -> None:
    peer.servicer.download = endless

    async for chunk in peer.media.DownloadMedia(Chunk(), metadata=token):
        if chunk.number == 5:
            break

    await ended(peer, ["cancelled"])
    await nothing_is_under_way(peer)


async def test_a_stream_of_requests_that_was_cut_off_is_never_taken_for_a_whole_one(
    peer: MediaPeer, token: Any
) -> None:
    """gRPC ends the handler's iterator in the same way when a call is cancelled as when its stream is complete."""
    count = 40
    for _ in range(count):
        call = peer.media.UploadMedia(chunks_and_silence(0, 1, 2), metadata=token)
        await peer.servicer.begun.acquire()
        call.cancel()

    await ended(peer, ["cancelled"] * count)
    await nothing_is_under_way(peer)


@METHODS
async def test_a_deadline_half_way_ends_the_call_and_its_handler(peer: MediaPeer, token: Any, method: str) -> None:
    numbers = Numbers()
    call = begin(peer, method, numbers(), metadata=token, timeout=0.5)

    failed = await failure(outcome(call))

    assert failed.code is grpc.StatusCode.DEADLINE_EXCEEDED
    assert await call.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    await nothing_is_under_way(peer)
    assert set(peer.servicer.ended) <= {"cancelled"}
    if method == "UploadMedia":
        assert numbers.closed.is_set()


async def test_a_deadline_ends_a_stream_that_nobody_reads(peer: MediaPeer, token: Any) -> None:
    peer.servicer.download = lambda request: Numbers(data=DATA)()

    call = peer.media.DownloadMedia(Chunk(), metadata=token, timeout=0.5)

    await peer.servicer.begun.acquire()
    await ended(peer, ["cancelled"])
    await nothing_is_under_way(peer)
    del call


@METHODS
async def test_a_deadline_that_has_passed_ends_the_call(peer: MediaPeer, token: Any, method: str) -> None:
    failed = await failure(outcome(begin(peer, method, metadata=token, timeout=0)))

    assert failed.code is grpc.StatusCode.DEADLINE_EXCEEDED
    await nothing_is_under_way(peer)
    # The wire rounds up: one over a socket may have begun.
    assert peer.servicer.begun.locked() or peer.server is not None
    assert set(peer.servicer.ended) <= {"cancelled"}


async def test_a_handler_may_answer_before_the_stream_of_requests_ends(peer: MediaPeer, token: Any) -> None:
    async def upload(requests: AsyncIterator[Any]) -> Any:
        return await anext(requests)

    peer.servicer.upload = upload
    for numbers in (Numbers(), Numbers(data=DATA)):
        call = peer.media.UploadMedia(numbers(), metadata=token)

        assert (await call).number == 0

        assert await call.code() is grpc.StatusCode.OK
        assert numbers.closed.is_set()
    await nothing_is_under_way(peer)


async def test_a_slow_handler_slows_down_its_caller(kind: str, peer: MediaPeer, token: Any) -> None:
    ahead = 0

    async def upload(requests: AsyncIterator[Any]) -> Any:
        nonlocal ahead
        async for request in requests:
            ahead = max(ahead, numbers.made - request.number - 1)
            if request.number < 30:
                await asyncio.sleep(0.02)
        return Chunk()

    peer.servicer.upload = upload
    numbers = Numbers(400, DATA)

    await peer.media.UploadMedia(numbers(), metadata=token, timeout=60)

    assert numbers.made == 400
    assert ahead <= MOST_AHEAD[kind]


async def test_a_slow_reader_slows_down_the_handler(kind: str, peer: MediaPeer, token: Any) -> None:
    numbers = Numbers(400, DATA)
    peer.servicer.download = lambda request: numbers()
    ahead = 0

    async for chunk in peer.media.DownloadMedia(Chunk(), metadata=token, timeout=60):
        ahead = max(ahead, numbers.made - chunk.number - 1)
        if chunk.number < 30:
            await asyncio.sleep(0.02)

    assert numbers.made == 400
    assert ahead <= MOST_AHEAD[kind]


@pytest.mark.parametrize("raised", [ZeroDivisionError("mine"), not_found(), asyncio.CancelledError()], ids=repr)
@pytest.mark.parametrize("count", [0, 3])
async def test_what_a_callers_iterator_raises_cancels_the_call_and_is_the_callers(
    peer: MediaPeer, token: Any, raised: BaseException, count: int
) -> None:
    call = peer.media.UploadMedia(Numbers(count, failure=raised)(), metadata=token)

    with pytest.raises(type(raised)) as told:
        await call

    assert str(told.value) == str(raised)
    assert await call.code() is grpc.StatusCode.CANCELLED
    await nothing_is_under_way(peer)
    assert set(peer.servicer.ended) <= {"cancelled"}


async def test_a_callers_iterator_runs_as_part_of_its_own_call(front: MediaPeer, back: MediaPeer, token: Any) -> None:
    seen: list[tuple[Call, Call]] = []

    async def upload(requests: AsyncIterator[Any]) -> Any:
        own = call_under_way()

        async def passed_on() -> AsyncIterator[Any]:
            async for request in requests:
                seen.append((own, call_under_way()))
                yield request

        return await back.media.UploadMedia(passed_on())

    front.servicer.upload = upload
    await front.media.UploadMedia(chunks(0, 1, 2), metadata=token)

    assert len(seen) == 3
    assert all(own is then for own, then in seen)


@METHODS
async def test_more_streams_than_are_admitted_are_refused(kind: str, issuer: Issuer, token: Any, method: str) -> None:
    async with media_running(kind, issuer, max_calls=1) as peer:
        under_way = begin(peer, method, metadata=token)
        await peer.servicer.begun.acquire()

        for other in ("UploadMedia", "DownloadMedia"):
            refused = await failure(outcome(begin(peer, other, metadata=token)))
            assert (refused.code, refused.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "OVERLOADED")
            assert refused.retry_after

        under_way.cancel()
        await nothing_is_under_way(peer)
        assert await peer.media.UploadMedia(chunks(1), metadata=token) == Chunk(number=1)


async def test_downloads_take_a_share_of_the_places(issuer: Issuer, token: Any) -> None:
    async with media_running("remote", issuer, max_calls=8) as peer:
        under_way = begin(peer, "DownloadMedia", metadata=token)
        await peer.servicer.begun.acquire()

        refused = await failure(outcome(begin(peer, "DownloadMedia", metadata=token)))

        assert (refused.code, refused.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "OVERLOADED")
        assert await peer.media.UploadMedia(chunks(1), metadata=token) == Chunk(number=1)
        under_way.cancel()
        await nothing_is_under_way(peer)


async def test_streams_are_refused_before_they_begin_while_calls_wait_too_long(issuer: Issuer, token: Any) -> None:
    # However short calls wait: it is too long.
    async with media_running("remote", issuer, longest_wait=-1) as peer:
        numbers = Numbers(data=DATA)
        for refused in (
            await failure(peer.media.UploadMedia(numbers(), metadata=token)),
            await failure(all_of(peer.media.DownloadMedia(Chunk(), metadata=token))),
        ):
            assert (refused.code, refused.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "OVERLOADED")
            assert len(refused.trace_id) == 32
        assert peer.servicer.begun.locked()


async def test_streams_that_change_something_count_for_how_much_a_caller_may_change(
    kind: str, issuer: Issuer, token: Any
) -> None:
    async with media_running(kind, issuer, limit=MutationLimit(2)) as peer:
        for _ in range(2):
            await peer.media.UploadMedia(chunks(1), metadata=token)
            await all_of(peer.media.DownloadMedia(Chunk(number=1), metadata=token))
        refused = await failure(peer.media.UploadMedia(chunks(1), metadata=token))

        assert (refused.code, refused.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "RATE_LIMITED")
        assert await all_of(peer.media.DownloadMedia(Chunk(number=1), metadata=token)) == [0]


async def test_streams_are_passed_on_whole(front: MediaPeer, back: MediaPeer, token: Any) -> None:
    assert await front.media.UploadMedia(Numbers(100)(), metadata=token) == Chunk(number=100)
    assert back.servicer.taken == list(range(100))
    assert await all_of(front.media.DownloadMedia(Chunk(number=100), metadata=token)) == list(range(100))


@METHODS
async def test_a_stream_to_another_service_is_made_as_the_caller_in_the_same_trace_with_the_time_that_is_left(
    front: MediaPeer, back: MediaPeer, token: Any, method: str
) -> None:
    seen: list[Call] = []
    left: list[float] = []

    async def upload(requests: AsyncIterator[Any]) -> Any:
        seen.append(call_under_way())
        left.append(call_under_way().deadline - asyncio.get_running_loop().time())
        return Chunk()

    async def download(request: Any) -> AsyncIterator[Any]:
        yield await upload(chunks())

    back.servicer.upload = upload
    back.servicer.download = download
    if method == "UploadMedia":
        call = front.media.UploadMedia(chunks(1), metadata=token, timeout=3)
    else:
        call = front.media.DownloadMedia(Chunk(), metadata=token, timeout=3)
    await outcome(call)

    assert seen[0].caller.user_id == 7
    assert seen[0].trace_id == (await call.trailing_metadata())["trace-id"]
    # The wire rounds up.
    assert 2 < left[0] < 3.1


@METHODS
async def test_an_error_of_another_service_is_passed_on(
    front: MediaPeer, back: MediaPeer, token: Any, method: str
) -> None:
    async def upload(requests: AsyncIterator[Any]) -> Any:
        raise not_found()

    async def download(request: Any) -> AsyncIterator[Any]:
        yield await upload(chunks())

    back.servicer.upload = upload
    back.servicer.download = download
    if method == "UploadMedia":
        call = front.media.UploadMedia(chunks_and_silence(1), metadata=token)
    else:
        call = front.media.DownloadMedia(Chunk(), metadata=token)

    failed = await failure(outcome(call))

    assert (failed.code, failed.reason, failed.fields) == (grpc.StatusCode.NOT_FOUND, "POST_NOT_FOUND", ["post_id"])


async def test_an_invalid_request_ends_the_stream_that_is_passed_on_too(
    front: MediaPeer, back: MediaPeer, token: Any
) -> None:
    failed = await failure(front.media.UploadMedia(chunks_and_silence(0, -1), metadata=token))

    assert (failed.code, failed.fields) == (grpc.StatusCode.INVALID_ARGUMENT, ["number"])
    await nothing_is_under_way(back)
    assert set(back.servicer.ended) <= {"cancelled"}


@METHODS
async def test_a_cancellation_reaches_the_other_services(
    front: MediaPeer, back: MediaPeer, token: Any, method: str
) -> None:
    back.servicer.download = silent
    if method == "UploadMedia":
        call = front.media.UploadMedia(chunks_and_silence(1), metadata=token)
    else:
        call = front.media.DownloadMedia(Chunk(), metadata=token)
    waiting = asyncio.ensure_future(outcome(call))
    await back.servicer.begun.acquire()

    call.cancel()

    await ended(back, ["cancelled"])
    await nothing_is_under_way(back)
    await nothing_is_under_way(front)
    with pytest.raises(asyncio.CancelledError):
        await waiting


async def test_a_cancellation_reaches_the_other_services_while_nobody_reads(
    front: MediaPeer, back: MediaPeer, token: Any
) -> None:
    back.servicer.download = lambda request: Numbers(data=DATA)()
    call = front.media.DownloadMedia(Chunk(), metadata=token)
    await anext(call)
    await back.servicer.begun.acquire()

    call.cancel()

    await ended(back, ["cancelled"])
    await nothing_is_under_way(back)
    await nothing_is_under_way(front)


async def test_streams_under_way_are_finished_although_the_server_stops(issuer: Issuer, token: Any) -> None:
    opened = asyncio.Event()

    async def some() -> AsyncIterator[Any]:
        yield Chunk(number=0)
        await opened.wait()
        yield Chunk(number=1)

    async with media_running("remote", issuer) as peer, grpc.aio.insecure_channel(peer.address, LONE) as channel:
        peer.servicer.download = lambda request: some()
        upload = peer.media.UploadMedia(some(), metadata=token)
        download = peer.media.DownloadMedia(Chunk(), metadata=token)
        first = await anext(download)
        for _ in range(2):
            await peer.servicer.begun.acquire()

        assert peer.server is not None
        draining = asyncio.ensure_future(peer.server.drain(20))
        peer.servicer.download = peer.servicer.numbers
        later = MediaStub(channel)
        await refused_soon(lambda: all_of(later.DownloadMedia(Chunk(), metadata=token)), grpc.StatusCode.UNAVAILABLE)
        opened.set()

        assert await upload == Chunk(number=2)
        assert [first.number, *await all_of(download)] == [0, 1]
        assert await download.code() is grpc.StatusCode.OK
        await draining


@METHODS
async def test_a_stop_waits_no_longer_than_its_grace_for_streams(issuer: Issuer, token: Any, method: str) -> None:
    async with media_running("remote", issuer) as peer:
        call = begin(peer, method, metadata=token)
        await peer.servicer.begun.acquire()

        began = time.monotonic()
        assert peer.server is not None
        await peer.server.drain(0.1)

        assert time.monotonic() - began < 5
        assert (await failure(outcome(call))).code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)
        await ended(peer, ["cancelled"])


@METHODS
async def test_a_stream_waits_for_a_service_that_is_started_again(issuer: Issuer, token: Any, method: str) -> None:
    async with media_running("remote", issuer) as peer:
        await peer.media.UploadMedia(chunks(1), metadata=token)
        await peer.stop()
        if method == "UploadMedia":
            call = peer.media.UploadMedia(chunks(0, 1, 2), metadata=token)
        else:
            call = peer.media.DownloadMedia(Chunk(number=3), metadata=token)
        waiting = asyncio.ensure_future(outcome(call))
        assert await asyncio.wait([waiting], timeout=0.3) == (set(), {waiting})

        async with media_running("remote", issuer, listen=peer.address):
            assert await waiting == (Chunk(number=3) if method == "UploadMedia" else [0, 1, 2])
            assert await call.code() is grpc.StatusCode.OK
            assert "trace-id" in await call.trailing_metadata()


@METHODS
async def test_a_stream_that_waits_for_a_service_can_be_cancelled(issuer: Issuer, token: Any, method: str) -> None:
    async with media_running("remote", issuer) as peer:
        await peer.stop()
        call = begin(peer, method, metadata=token)

        call.cancel()

        assert await call.code() is grpc.StatusCode.CANCELLED
        with pytest.raises(asyncio.CancelledError):
            await outcome(call)


async def test_streams_to_a_service_that_is_away_are_unavailable(issuer: Issuer, token: Any) -> None:
    async with media_running("remote", issuer) as peer:
        await peer.stop()
        numbers = Numbers()
        upload = asyncio.ensure_future(failure(peer.media.UploadMedia(numbers(), metadata=token)))
        download = asyncio.ensure_future(failure(all_of(peer.media.DownloadMedia(Chunk(), metadata=token))))

        assert (await upload).code is grpc.StatusCode.UNAVAILABLE
        assert (await download).code is grpc.StatusCode.UNAVAILABLE


@METHODS
async def test_a_client_that_names_no_deadline_gets_one_but_for_health(
    issuer: Issuer, token: Any, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "LONGEST_STREAM_SECONDS", 0.3)
    async with media_running("remote", issuer) as peer, grpc.aio.insecure_channel(peer.address, LONE) as channel:
        watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
        await watch.read()
        peer.servicer.download = silent
        media = MediaStub(channel)
        # Without requests it is one that is still to be written to.
        upload = method == "UploadMedia"
        call = media.UploadMedia(metadata=token) if upload else media.DownloadMedia(Chunk(), metadata=token)

        failed = await failure(outcome(call))

        assert (failed.code, failed.reason) == (grpc.StatusCode.DEADLINE_EXCEEDED, "DEADLINE_EXCEEDED")
        await ended(peer, ["cancelled"])
        assert not watch.done()
        watch.cancel()
