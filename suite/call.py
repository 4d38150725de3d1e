"""Calls a method of a running server that is known by its reflection only."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import click
import grpc
from google.protobuf import (
    descriptor,
    descriptor_pb2,
    descriptor_pool,
    field_mask_pb2,
    json_format,
    message,
    message_factory,
)
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from chassis.settings import Settings
from suite import client, failures
from suite.client import Metadata

_UPLOAD = "insta.gateway.v1.MediaService.UploadMedia"


@click.command()
@click.argument("method", required=False)
@click.argument("fields", metavar="[FIELD=VALUE]...", nargs=-1)
@click.option("-d", "--data", metavar="JSON", help="The whole request as JSON; @ reads it from standard input.")
@client.address
@client.trusted
@client.token
@client.as_user
@click.option(
    "--timeout",
    type=click.FloatRange(0.01),
    metavar="SECONDS",
    default=10.0,
    show_default=True,
    help="How long to wait.",
)
@click.pass_obj
def call(
    settings: Settings,
    method: str | None,
    fields: tuple[str, ...],
    data: str | None,
    address: str,
    authorities: Path | None,
    token: str | None,
    user: str | None,
    timeout: float,
) -> None:
    """Call a method of a running suite and print its response.

    METHOD is Service.Method or Service/Method; the package may be left out. Without METHOD all of them are listed. Any
    server with reflection will do.

    \b
      insta call AccountService.Login login=ana password='correct horse'
      insta call PostService.CreatePost title='First light' --as ana
      insta call PostService.BatchGetPosts post_ids=1 post_ids=2 --as ana
      insta call AccountService.UpdateAccount account.bio='Hi there' --as ana
      insta call PostService.GetPost -d '{"post_id": 1}' --as ana

    A field within a message has a dot before it. A list has one FIELD=VALUE for each of its items. Messages, lists and
    maps can also be given as JSON. The response is JSON as grpcurl prints it; an error goes to standard error, with all
    that the server tells about it.
    """
    metadata = client.metadata(settings, token, user)
    target = client.target(settings, address, authorities)
    with target.channel() as channel:
        server = _Server(channel, metadata, timeout)
        try:
            if method is None:
                click.echo(server.listing(), nl=False)
                return
            found = server.find(method)
            request = server.request(found, fields, sys.stdin.read() if data == "@" else data)
            for response in server.call(found, request):
                click.echo(server.json(response))
        except grpc.RpcError as error:
            click.echo(failures.told(target.address, error), err=True)
            sys.exit(1)


class _Server:
    """A server, and what its reflection says about it."""

    def __init__(self, channel: grpc.Channel, metadata: Metadata, timeout: float) -> None:
        self._channel = channel
        self._options: dict[str, Any] = {"metadata": metadata, "timeout": timeout}
        self._reflection = ProtoReflectionDescriptorDatabase(_WithOptions(channel, self._options))
        self._pool = descriptor_pool.DescriptorPool(self._reflection)

    def listing(self) -> str:
        """All methods, with the first sentence of their comments."""
        formatter = click.HelpFormatter()
        for name in self._services():
            file = self._reflection.FindFileContainingSymbol(name)
            with formatter.section(name):
                formatter.write_dl(list(_summaries(file, name.rpartition(".")[2])))
        return formatter.getvalue()

    def find(self, method: str) -> descriptor.MethodDescriptor:
        """A method by Service.Method or Service/Method, with or without the package."""
        service, _, name = method.rpartition("/" if "/" in method else ".")
        if not service or not name:
            raise click.UsageError(f"{method!r}: METHOD is Service.Method. Without it, all methods are listed.")
        names = self._services()
        matching = [full for full in names if full == service] or [
            full for full in names if full.endswith(f".{service}")
        ]
        if not matching:
            raise click.ClickException(f"there is no service {service}. There are: {', '.join(names)}.")
        if len(matching) > 1:
            raise click.ClickException(f"{service} may be any of: {', '.join(matching)}.")
        methods = self._pool.FindServiceByName(matching[0]).methods_by_name
        if name not in methods:
            raise click.ClickException(f"{matching[0]} has no method {name}. It has: {', '.join(methods)}.")
        return methods[name]

    def request(self, method: descriptor.MethodDescriptor, fields: Sequence[str], data: str | None) -> message.Message:
        """The message to send: from JSON, or from FIELD=VALUE."""
        if fields and data is not None:
            raise click.UsageError("give the request either as FIELD=VALUE or with --data.")
        request = message_factory.GetMessageClass(method.input_type)()
        try:
            if data is not None:
                json_format.Parse(data, request, descriptor_pool=self._pool)
            else:
                json_format.ParseDict(_content(method.input_type, fields), request, descriptor_pool=self._pool)
        except json_format.ParseError as wrong:
            raise click.ClickException(f"this is no {method.input_type.name}: {wrong}") from None
        return request

    def call(self, method: descriptor.MethodDescriptor, request: message.Message) -> Iterator[message.Message]:
        """The responses: one, or those of a stream as they come."""
        if method.client_streaming:
            instead = " Upload an image with: insta media upload FILE" if method.full_name == _UPLOAD else ""
            text = f"{method.full_name} takes a stream of requests, which is not possible here.{instead}"
            raise click.ClickException(text)
        kind: Any = self._channel.unary_stream if method.server_streaming else self._channel.unary_unary
        invoke = kind(
            f"/{method.containing_service.full_name}/{method.name}",
            request_serializer=lambda sent: sent.SerializeToString(),
            response_deserializer=message_factory.GetMessageClass(method.output_type).FromString,
        )
        answer = invoke(request, **self._options)
        yield from answer if method.server_streaming else [answer]

    def json(self, response: message.Message) -> str:
        return json_format.MessageToJson(response, ensure_ascii=False, descriptor_pool=self._pool)

    def _services(self) -> list[str]:
        try:
            return sorted(self._reflection.get_services())
        except grpc.RpcError as error:
            if error.code() is not grpc.StatusCode.UNIMPLEMENTED:
                raise
            text = "the server has no reflection (INSTA_REFLECTION), so nothing is known about its methods."
            raise click.ClickException(text) from None


class _WithOptions:
    """A channel whose streams have metadata and a deadline: the reflection database gives its calls neither."""

    def __init__(self, channel: grpc.Channel, options: dict[str, Any]) -> None:
        self._channel = channel
        self._options = options

    def stream_stream(self, *args: Any, **kwargs: Any) -> Any:
        invoke = self._channel.stream_stream(*args, **kwargs)
        return lambda requests: invoke(requests, **self._options)


def _summaries(file: descriptor_pb2.FileDescriptorProto, service: str) -> Iterator[tuple[str, str]]:
    """Name and first sentence of each method of a service. The sentence is empty if the server keeps no comments."""
    comments = {tuple(place.path): place.leading_comments for place in file.source_code_info.location}
    number = [each.name for each in file.service].index(service)
    for index, method in enumerate(file.service[number].method):
        # The numbers of `service` in a file and of `method` in a service (google/protobuf/descriptor.proto).
        comment = " ".join(comments.get((6, number, 2, index), "").split())
        yield method.name, comment.partition(". ")[0].removesuffix(".")


def _content(request: descriptor.Descriptor, fields: Sequence[str]) -> dict[str, Any]:
    """The JSON form of a message."""
    content: dict[str, Any] = {}
    for given in fields:
        path, separator, text = given.partition("=")
        if not separator:
            raise click.UsageError(f"{given!r}: give a field as FIELD=VALUE.")
        *parents, last = path.split(".")
        within, kind = content, request
        for name in parents:
            field = _field(kind, name)
            if field.message_type is None or field.is_repeated:
                raise click.ClickException(f"{path}: {name} is no single message, and has no fields to set.")
            within, kind = within.setdefault(field.name, {}), field.message_type
        field = _field(kind, last)
        if field.is_repeated:
            _extend(within, field, text)
        elif field.name in within:
            raise click.ClickException(f"{path} is given twice, and is no list.")
        else:
            within[field.name] = _value(field, text)
    return content


def _extend(within: dict[str, Any], field: descriptor.FieldDescriptor, text: str) -> None:
    """Add to a list or a map."""
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        within.setdefault(field.name, {}).update(_parsed(field, text, dict))
    elif text.startswith("["):
        within.setdefault(field.name, []).extend(_parsed(field, text, list))
    else:
        within.setdefault(field.name, []).append(_value(field, text))


def _value(field: descriptor.FieldDescriptor, text: str) -> Any:
    """What stands for `text` in JSON. Numbers and names of enums may stand there as text."""
    if field.type == field.TYPE_BOOL:
        if text not in ("true", "false"):
            raise click.ClickException(f"{field.name} is true or false, not {text!r}.")
        return text == "true"
    if field.message_type is None:
        return text
    if text.startswith("{"):
        return _parsed(field, text, dict)
    if field.message_type.full_name == "google.protobuf.FieldMask":
        # In JSON its paths are in camel case, everywhere else as in the contract.
        return field_mask_pb2.FieldMask(paths=text.split(",")).ToJsonString() if "_" in text else text
    if not field.message_type.full_name.startswith("google.protobuf."):
        text = f"{field.name} is a message: give {field.name}.FIELD=VALUE, or {field.name}={{...}} in JSON."
        raise click.ClickException(text)
    # Times, durations and the like are text in JSON.
    return text


def _parsed(field: descriptor.FieldDescriptor, text: str, kind: type[Any]) -> Any:
    try:
        parsed = json.loads(text)
    except ValueError:
        parsed = None
    if not isinstance(parsed, kind):
        wanted = "an object" if kind is dict else "a list"
        raise click.ClickException(f"{field.name} takes {wanted} in JSON, not {text!r}.")
    return parsed


def _field(of: descriptor.Descriptor, name: str) -> descriptor.FieldDescriptor:
    field = of.fields_by_name.get(name) or of.fields_by_camelcase_name.get(name)
    if field is None:
        there = f"It has: {', '.join(of.fields_by_name)}." if of.fields else "It has none."
        raise click.ClickException(f"{of.name} has no field {name}. {there}")
    return field
