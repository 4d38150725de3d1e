"""Random input to every method of the public API: nothing of the inside shows, whatever is sent."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from google.protobuf import descriptor, field_mask_pb2, message, message_factory
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from insta.gateway.v1 import accounts_pb2, admin_pb2, posts_pb2, profiles_pb2
from tests.end_to_end import blocking
from tests.people import Failure
from tests.running import SUPERUSER, RunningSuite

METHODS = [
    method
    for module in (accounts_pb2, profiles_pb2, posts_pb2, admin_pb2)
    for service in module.DESCRIPTOR.services_by_name.values()
    for method in service.methods
]
FORBIDDEN_CODES = (grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN, grpc.StatusCode.UNAVAILABLE)
TRACES_OF_CODE = ("Traceback", "Error(", "Exception", "peewee", "apsw", "sqlite", "SELECT", ".py", "object at 0x")

every_run_the_same = settings(
    derandomize=True,
    deadline=None,
    phases=[Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


class Target:
    """A gateway to call with whatever bytes, as nobody, as a user and as staff."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._channel = channel
        boss = blocking.person(channel, SUPERUSER)
        staff = blocking.join(channel)
        boss.admin.SetUserRoles(admin_pb2.SetUserRolesRequest(user_id=staff.id, staff=True))
        # Staff, but no superuser: no random request may take the boss of other tests away.
        self._tokens = ["", blocking.join(channel).token, blocking.person(channel, staff.username).token]

    def send(self, method: descriptor.MethodDescriptor, sent: bytes) -> Iterator[Failure]:
        """Send bytes with each of the tokens; how the calls failed."""
        call = self._channel.unary_unary(f"/{method.containing_service.full_name}/{method.name}")
        calls = [
            call.future(sent, timeout=30, metadata=(("authorization", f"Bearer {token}"),) if token else ())
            for token in self._tokens
        ]
        for under_way in calls:
            error = under_way.exception()
            if error is not None:
                yield Failure(error)


def messages(of: descriptor.Descriptor) -> st.SearchStrategy[message.Message]:
    """Messages with random values in random fields, at times close to valid ones."""
    built = message_factory.GetMessageClass(of)
    return st.fixed_dictionaries({}, optional={field.name: _values(field) for field in of.fields}).map(
        # Of a oneof the last one set stands, as on the wire.
        lambda values: built(**values)
    )


def _values(field: descriptor.FieldDescriptor) -> st.SearchStrategy[Any]:
    if field.message_type is field_mask_pb2.FieldMask.DESCRIPTOR:
        paths = st.sampled_from(["title", "bio", "image_urls", "email", "password", "*", "", "a.b"])
        value: st.SearchStrategy[Any] = st.builds(field_mask_pb2.FieldMask, paths=st.lists(paths, max_size=3))
    elif field.message_type is not None:
        value = messages(field.message_type)
    elif field.type == descriptor.FieldDescriptor.TYPE_STRING:
        text = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
        value = text | st.sampled_from(["https://example.com/a.jpg", "a@example.com", "long enough", "%", "A" * 27])
    elif field.type == descriptor.FieldDescriptor.TYPE_BOOL:
        value = st.booleans()
    elif field.type == descriptor.FieldDescriptor.TYPE_INT64:
        value = st.sampled_from([0, 1, 2, 3, 100, -1, 2**31, 2**53, 2**63 - 1, -(2**63)])
    else:
        value = st.sampled_from([0, 1, 2, 20, 100, 101, -1, 2**31 - 1, -(2**31), 999_999_999])
    return st.lists(value, max_size=4) if field.is_repeated else value


@pytest.fixture(scope="module")
def target(suite: RunningSuite) -> Iterator[Target]:
    with blocking.channel_to(suite) as channel:
        yield Target(channel)


@settings(every_run_the_same, max_examples=12)
@given(data=st.data())
def test_random_bytes_never_show_the_inside(target: Target, data: st.DataObject) -> None:
    sent = data.draw(st.binary(max_size=64))

    for method in METHODS:
        assert_opaque(target, method, sent)


@settings(every_run_the_same, max_examples=12)
@given(data=st.data())
def test_random_messages_never_show_the_inside(target: Target, data: st.DataObject) -> None:
    for method in METHODS:
        assert_opaque(target, method, data.draw(messages(method.input_type)).SerializeToString())


@settings(every_run_the_same, max_examples=12)
@given(data=st.data())
def test_messages_with_broken_bytes_never_show_the_inside(target: Target, data: st.DataObject) -> None:
    for method in METHODS:
        sent = bytearray(data.draw(messages(method.input_type)).SerializeToString())
        for _ in range(data.draw(st.integers(1, 3)) if sent else 0):
            sent[data.draw(st.integers(0, len(sent) - 1))] = data.draw(st.integers(0, 255))
        assert_opaque(target, method, bytes(sent))


def assert_opaque(target: Target, method: descriptor.MethodDescriptor, sent: bytes) -> None:
    for failed in target.send(method, sent):
        assert failed.code not in FORBIDDEN_CODES, (method.full_name, sent, failed)
        assert failed.reason, (method.full_name, sent, failed)
        assert not any(trace in failed.text for trace in TRACES_OF_CODE), (method.full_name, sent, failed)
