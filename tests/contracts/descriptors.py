"""The contracts as data: the descriptor set of the suite, walked with its comments."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from google.protobuf import descriptor, descriptor_pb2, descriptor_pool

import insta
from insta.access.v1 import access_pb2
from insta.buf.validate import validate_pb2

# Field numbers in descriptor.proto, of which the paths of source locations are made.
_SYNTAX = 12
_IN_FILE = {"message_type": 4, "enum_type": 5, "service": 6, "extension": 7}
_IN_MESSAGE = {"field": 2, "nested_type": 3, "enum_type": 4, "extension": 6, "oneof_decl": 8}
_IN_ENUM = {"value": 2}
_IN_SERVICE = {"method": 2}
_INSIDE: dict[type, dict[str, int]] = {
    descriptor_pb2.FileDescriptorProto: _IN_FILE,
    descriptor_pb2.DescriptorProto: _IN_MESSAGE,
    descriptor_pb2.EnumDescriptorProto: _IN_ENUM,
    descriptor_pb2.ServiceDescriptorProto: _IN_SERVICE,
}

Field = descriptor_pb2.FieldDescriptorProto
Message = descriptor_pb2.DescriptorProto
Method = descriptor_pb2.MethodDescriptorProto


@dataclass(frozen=True)
class Element:
    """Something that a contract defines: a file, service, method, message, field, oneof, enum, value or extension.

    Attributes:
        name: insta.posts.v1.Post.title; of a file its path.
        proto: Its descriptor.
        comment: What stands above it.
    """

    name: str
    proto: Any
    comment: str


class Contracts:
    """All that the contracts of the suite define."""

    def __init__(self) -> None:
        path = Path(insta.__path__[0]) / "insta.binpb"
        files = descriptor_pb2.FileDescriptorSet.FromString(path.read_bytes()).file
        self.files = [file for file in files if file.package.startswith("insta.")]
        self.elements = [element for file in self.files for element in _elements(file)]
        self._messages: dict[str, Message] = {
            element.name: element.proto for file in files for element in _elements(file) if _is(element, Message)
        }
        self._pool = descriptor_pool.DescriptorPool()
        for file in files:
            self._pool.Add(file)

    def methods(self) -> dict[str, Method]:
        """All methods, by names as they are called: insta.posts.v1.PostService/GetPost."""
        return {
            "/".join(element.name.rsplit(".", 1)): element.proto for element in self.elements if _is(element, Method)
        }

    def callable(self, method: str) -> descriptor.MethodDescriptor:
        """The descriptor with which a method can be called, by the name that `methods` gives it."""
        service, _, name = method.partition("/")
        found: descriptor.MethodDescriptor = self._pool.FindServiceByName(service).methods_by_name[name]
        return found

    def message(self, type_name: str) -> Message:
        """A message by the name that a field or a method refers to it with."""
        return self._messages[type_name.removeprefix(".")]

    def fields(self) -> dict[str, Field]:
        """All fields of all messages, by their full names. No extensions."""
        return {
            f"{element.name}.{field.name}": field
            for element in self.elements
            if _is(element, Message)
            for field in element.proto.field
        }

    def reachable(self, type_name: str) -> dict[str, Field]:
        """All fields that a message of this type can hold, at any depth, by full names; none of google.protobuf."""
        found: dict[str, Field] = {}
        waiting = [type_name.removeprefix(".")]
        for name in waiting:
            for field in self._messages[name].field:
                found[f"{name}.{field.name}"] = field
                inner = field.type_name.removeprefix(".")
                if inner in self._messages and not inner.startswith("google.") and inner not in waiting:
                    waiting.append(inner)
        return found


def access(method: Method) -> access_pb2.Access.ValueType:
    """Who may call a method, as its contract declares."""
    return method.options.Extensions[access_pb2.access]


def rules(field: Field) -> validate_pb2.FieldRules:
    """The rules that a contract declares for the values of a field."""
    return field.options.Extensions[validate_pb2.field]


def is_reading(method: Method) -> bool:
    """Whether the contract says that calling the method changes nothing."""
    return method.options.idempotency_level == descriptor_pb2.MethodOptions.NO_SIDE_EFFECTS


def _is(element: Element, kind: type) -> bool:
    return isinstance(element.proto, kind)


def _elements(file: descriptor_pb2.FileDescriptorProto) -> Iterator[Element]:
    comments = {tuple(place.path): place.leading_comments.strip() for place in file.source_code_info.location}
    yield Element(file.name, file, comments.get((_SYNTAX,), ""))
    yield from _inside(file, file.package, (), comments)


def _inside(parent: Any, scope: str, path: tuple[int, ...], comments: dict[tuple[int, ...], str]) -> Iterator[Element]:
    for attribute, number in _INSIDE.get(type(parent), {}).items():
        for index, proto in enumerate(getattr(parent, attribute)):
            if _is_synthetic(parent, attribute, index):
                continue
            place = (*path, number, index)
            name = f"{scope}.{proto.name}"
            yield Element(name, proto, comments.get(place, ""))
            yield from _inside(proto, name, place, comments)


def _is_synthetic(parent: Any, attribute: str, index: int) -> bool:
    """Whether protoc made it: the oneof of an `optional` field, the entry of a map."""
    if attribute == "oneof_decl":
        return any(field.proto3_optional and field.oneof_index == index for field in parent.field)
    return attribute == "nested_type" and parent.nested_type[index].options.map_entry
