"""A contract with streams, made when the tests run: the suite's own has none of their kinds that tests could script."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from insta.access.v1 import access_pb2
from insta.buf.validate import validate_pb2
from tests.chassis.issuer import Issuer
from tests.chassis.peers import Way, reached

_PACKAGE = "tests.media.v1"
CONTRACT = f"{_PACKAGE}.MediaService"
_Field = descriptor_pb2.FieldDescriptorProto
_NO_SIDE_EFFECTS = descriptor_pb2.MethodOptions.NO_SIDE_EFFECTS


def _contract() -> descriptor_pb2.FileDescriptorProto:
    """Who streams sends `Chunk`s, whose number must not be negative; who does not, one as well."""
    file = descriptor_pb2.FileDescriptorProto(
        name="tests/media/v1/media.proto",
        package=_PACKAGE,
        dependency=[access_pb2.DESCRIPTOR.name, validate_pb2.DESCRIPTOR.name],
        syntax="proto3",
    )
    chunk = file.message_type.add(name="Chunk")
    number = chunk.field.add(name="number", number=1, type=_Field.TYPE_INT64, label=_Field.LABEL_OPTIONAL)
    number.options.Extensions[validate_pb2.field].int64.gte = 0
    chunk.field.add(name="data", number=2, type=_Field.TYPE_BYTES, label=_Field.LABEL_OPTIONAL)
    service = file.service.add(name="MediaService")
    for name, uploads, access in (
        ("UploadMedia", True, access_pb2.ACCESS_USER),
        ("DownloadMedia", False, access_pb2.ACCESS_USER),
        ("ImportMedia", True, access_pb2.ACCESS_STAFF),
        ("ExportMedia", False, access_pb2.ACCESS_STAFF),
    ):
        method = service.method.add(name=name, input_type=f".{_PACKAGE}.Chunk", output_type=f".{_PACKAGE}.Chunk")
        method.client_streaming = uploads
        method.server_streaming = not uploads
        method.options.Extensions[access_pb2.access] = access
        if not uploads:
            method.options.idempotency_level = _NO_SIDE_EFFECTS
    return file


descriptor_pool.Default().AddSerializedFile(_contract().SerializeToString())
Chunk: Any = message_factory.GetMessageClass(descriptor_pool.Default().FindMessageTypeByName(f"{_PACKAGE}.Chunk"))


class MediaStub:
    """As it would be generated."""

    def __init__(self, channel: Any) -> None:
        def method(kind: Any, name: str) -> Any:
            return kind(
                f"/{CONTRACT}/{name}",
                request_serializer=Chunk.SerializeToString,
                response_deserializer=Chunk.FromString,
                _registered_method=True,
            )

        self.UploadMedia = method(channel.stream_unary, "UploadMedia")
        self.ImportMedia = method(channel.stream_unary, "ImportMedia")
        self.DownloadMedia = method(channel.unary_stream, "DownloadMedia")
        self.ExportMedia = method(channel.unary_stream, "ExportMedia")


class Media:
    """Answers as a test tells it.

    Attributes:
        upload: Answers a stream: at first with the number of its chunks.
        download: Answers with a stream: at first of as many chunks as are asked for.
        begun: Calls that reached it.
        taken: The numbers that `upload` was sent.
        ended: How the streams of requests and responses ended: "whole", "cancelled" or the name of an exception.
    """

    def __init__(self) -> None:
        self.upload: Callable[[AsyncIterator[Any]], Awaitable[Any]] = self.count
        self.download: Callable[[Any], AsyncGenerator[Any, None]] = self.numbers
        self.begun = asyncio.Semaphore(0)
        self.taken: list[int] = []
        self.ended: list[str] = []

    async def UploadMedia(self, requests: AsyncIterator[Any], context: object) -> Any:
        self.begun.release()
        return await self._ending(self.upload(requests))

    async def DownloadMedia(self, request: Any, context: object) -> AsyncIterator[Any]:
        self.begun.release()
        try:
            async with aclosing(self.download(request)) as chunks:
                async for chunk in chunks:
                    yield chunk
        except BaseException as end:
            self.ended.append(_name(end))
            raise
        self.ended.append("whole")

    ImportMedia = UploadMedia
    ExportMedia = DownloadMedia

    async def count(self, requests: AsyncIterator[Any]) -> Any:
        count = 0
        async for request in requests:
            self.taken.append(request.number)
            count += 1
        return Chunk(number=count)

    async def numbers(self, request: Any) -> AsyncGenerator[Any, None]:
        for number in range(request.number):
            yield Chunk(number=number)

    async def _ending(self, answer: Awaitable[Any]) -> Any:
        try:
            response = await answer
        except BaseException as end:
            self.ended.append(_name(end))
            raise
        self.ended.append("whole")
        return response


def _name(end: BaseException) -> str:
    # A generator that is closed ends like this.
    return "cancelled" if isinstance(end, asyncio.CancelledError | GeneratorExit) else type(end).__name__


@dataclass(kw_only=True)
class MediaPeer(Way):
    """The servicer and the way to it."""

    servicer: Media

    @property
    def media(self) -> MediaStub:
        return MediaStub(self.channel)

    def in_flight(self) -> tuple[float | None, int]:
        """How many calls are under way, as the metrics and the admission count them."""
        counted = self.metrics.registry.get_sample_value("insta_calls_in_flight", {"service": CONTRACT})
        return counted, self.admission.under_way

    def counted(self, method: str, code: str) -> float | None:
        """How many calls of a method ended in a way."""
        labels = {"method": f"{CONTRACT}/{method}", "code": code}
        return self.metrics.registry.get_sample_value("insta_calls_total", labels)


@asynccontextmanager
async def media_running(kind: str, issuer: Issuer, **options: Any) -> AsyncIterator[MediaPeer]:
    """A servicer of media, in one of the two ways."""
    servicer = Media()
    async with reached(kind, {CONTRACT: servicer}, issuer, **options) as way:
        yield MediaPeer(**vars(way), servicer=servicer)
