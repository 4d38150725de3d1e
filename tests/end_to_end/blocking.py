"""Callers whose calls block: hypothesis drives code that is not asynchronous."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import cast

import grpc

from insta.gateway.v1 import accounts_pb2
from tests.people import Person
from tests.running import PASSWORD, RunningSuite

_names = itertools.count()


@contextmanager
def channel_to(suite: RunningSuite) -> Iterator[grpc.Channel]:
    """A channel whose calls block."""
    with grpc.insecure_channel(suite.address, options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
        yield channel


def person(channel: grpc.Channel, login: str) -> Person:
    """Somebody who has an account. Of what a person can do, only the stubs work on such a channel."""
    # The stubs work on both kinds of channel; their types know one of them.
    either = cast(grpc.aio.Channel, channel)
    request = accounts_pb2.LoginRequest(login=login, password=PASSWORD)
    answer = Person(either).accounts.Login(request)
    return Person(either, answer.account.id, answer.account.username, answer.access_token)


def join(channel: grpc.Channel) -> Person:
    """Somebody new, registered and logged in."""
    username = f"b{os.getpid()}_{next(_names)}"
    request = accounts_pb2.RegisterRequest(
        username=username, email=f"{username}@example.com", password=PASSWORD, first_name="Pat"
    )
    Person(cast(grpc.aio.Channel, channel)).accounts.Register(request)
    return person(channel, username)
