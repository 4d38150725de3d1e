"""Server reflection (v1 and v1alpha) with the comments of the contracts.

A `DescriptorPool` drops comments and the stock servicer finds no methods; this one answers the bytes of the descriptor
set that was generated from the contracts.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Iterator
from pathlib import Path
from typing import Any

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format
from grpc_reflection.v1alpha import reflection_pb2 as v1alpha_pb2

import insta

V1 = "grpc.reflection.v1.ServerReflection"
V1ALPHA = "grpc.reflection.v1alpha.ServerReflection"


def register_v1() -> None:
    """Make the descriptors of the v1 protocol known: those of v1alpha under the new name, as it was renamed."""
    renamed = text_format.MessageToString(_proto(v1alpha_pb2.DESCRIPTOR)).replace("v1alpha", "v1")
    descriptor_pool.Default().Add(text_format.Parse(renamed, descriptor_pb2.FileDescriptorProto()))


class Descriptors:
    """The files of the contracts, and those of gRPC's own services, by name and by what they define.

    Args:
        services: Full names of the services that are listed.
    """

    def __init__(self, services: Iterable[str]) -> None:
        self.services = sorted(services)
        self._files: dict[str, descriptor_pb2.FileDescriptorProto] = {}
        self._file_of_symbol: dict[str, str] = {}
        self._file_of_extension: dict[tuple[str, int], str] = {}
        for file in _contracts():
            self._add(file)
        pool = descriptor_pool.Default()
        for service in self.services:
            if service not in self._file_of_symbol:
                self._add_with_imports(pool.FindServiceByName(service).file)

    def by_name(self, name: str) -> list[bytes] | None:
        """A file and all that it imports."""
        return self._closure(name) if name in self._files else None

    def by_symbol(self, symbol: str) -> list[bytes] | None:
        """The file that defines a service, method, message, field or enum, and all that it imports."""
        return self.by_name(self._file_of_symbol.get(symbol, ""))

    def by_extension(self, extendee: str, number: int) -> list[bytes] | None:
        """The file that defines an extension, and all that it imports."""
        return self.by_name(self._file_of_extension.get((extendee, number), ""))

    def extension_numbers(self, extendee: str) -> list[int] | None:
        """The numbers of the known extensions of a message."""
        if extendee not in self._file_of_symbol:
            return None
        return sorted(number for name, number in self._file_of_extension if name == extendee)

    def _closure(self, name: str) -> list[bytes]:
        names = [name]
        for found in names:
            names += [imported for imported in self._files[found].dependency if imported not in names]
        return [self._files[found].SerializeToString() for found in names]

    def _add_with_imports(self, file: Any) -> None:
        if file.name not in self._files:
            self._add(_proto(file))
            for imported in file.dependencies:
                self._add_with_imports(imported)

    def _add(self, file: descriptor_pb2.FileDescriptorProto) -> None:
        self._files[file.name] = file
        for symbol in _symbols(file):
            self._file_of_symbol[symbol] = file.name
        for extension in file.extension:
            self._file_of_extension[extension.extendee.lstrip("."), extension.number] = file.name


def _proto(file: Any) -> descriptor_pb2.FileDescriptorProto:
    proto = descriptor_pb2.FileDescriptorProto()
    file.CopyToProto(proto)
    return proto


def _contracts() -> Iterable[descriptor_pb2.FileDescriptorProto]:
    path = Path(insta.__path__[0]) / "insta.binpb"
    if not path.exists():
        raise FileNotFoundError(f"{path} is missing: make it with 'make protos'")
    return descriptor_pb2.FileDescriptorSet.FromString(path.read_bytes()).file


def _symbols(file: descriptor_pb2.FileDescriptorProto) -> Iterator[str]:
    scope = f"{file.package}." if file.package else ""
    for service in file.service:
        yield scope + service.name
        for method in service.method:
            yield f"{scope}{service.name}.{method.name}"
    for message in file.message_type:
        yield from _message_symbols(scope, message)
    for enum in file.enum_type:
        yield scope + enum.name
    for extension in file.extension:
        yield scope + extension.name


def _message_symbols(scope: str, message: descriptor_pb2.DescriptorProto) -> Iterator[str]:
    name = scope + message.name
    yield name
    for field in message.field:
        yield f"{name}.{field.name}"
    for enum in message.enum_type:
        yield f"{name}.{enum.name}"
    for nested in message.nested_type:
        yield from _message_symbols(f"{name}.", nested)


class ReflectionServicer:
    """One version of the protocol.

    Args:
        version: Full name of the service: `V1` or `V1ALPHA`.
        draining: Set when the server is about to stop; streams end then.
    """

    def __init__(self, descriptors: Descriptors, version: str, draining: asyncio.Event) -> None:
        self._descriptors = descriptors
        self._draining = draining
        method = descriptor_pool.Default().FindServiceByName(version).methods_by_name["ServerReflectionInfo"]
        self._response: Any = message_factory.GetMessageClass(method.output_type)

    async def ServerReflectionInfo(self, requests: AsyncIterator[Any], context: object) -> AsyncIterator[Any]:
        drained: asyncio.Future[Any] = asyncio.ensure_future(self._draining.wait())
        try:
            while (request := await self._next(requests, drained)) is not None:
                response = self._response(valid_host=request.host)
                response.original_request.CopyFrom(request)
                self._answer(request, response)
                yield response
        finally:
            drained.cancel()

    async def _next(self, requests: AsyncIterator[Any], drained: asyncio.Future[Any]) -> Any:
        """The next request; None when there is none, or the server is about to stop."""
        upcoming: asyncio.Future[Any] = asyncio.ensure_future(anext(requests, None))
        try:
            await asyncio.wait([upcoming, drained], return_when=asyncio.FIRST_COMPLETED)
            return upcoming.result() if upcoming.done() else None
        finally:
            upcoming.cancel()

    def _answer(self, request: Any, response: Any) -> None:
        found: Any = None
        match request.WhichOneof("message_request"):
            case "list_services":
                for name in self._descriptors.services:
                    response.list_services_response.service.add(name=name)
                return
            case "file_by_filename":
                found = self._descriptors.by_name(request.file_by_filename)
            case "file_containing_symbol":
                found = self._descriptors.by_symbol(request.file_containing_symbol)
            case "file_containing_extension":
                wanted = request.file_containing_extension
                found = self._descriptors.by_extension(wanted.containing_type, wanted.extension_number)
            case "all_extension_numbers_of_type":
                name = request.all_extension_numbers_of_type
                numbers = self._descriptors.extension_numbers(name)
                if numbers is not None:
                    response.all_extension_numbers_response.base_type_name = name
                    response.all_extension_numbers_response.extension_number.extend(numbers)
                    return
        if found is None:
            response.error_response.error_code = grpc.StatusCode.NOT_FOUND.value[0]
            response.error_response.error_message = "no such file, symbol or extension here"
            return
        response.file_descriptor_response.file_descriptor_proto.extend(found)
