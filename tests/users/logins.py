"""Sessions as clients hold them, from addresses of their choice, and the time that passes over them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any

import grpc
import jwt
import pytest

from chassis import clock, events
from chassis.store import Database, Store
from insta.gateway.v1 import accounts_pb2, posts_pb2
from insta.posts.v1 import posts_pb2 as stored_posts_pb2
from insta.posts.v1 import posts_pb2_grpc as stored_posts_pb2_grpc
from insta.social.v1 import likes_pb2, likes_pb2_grpc
from services.users import accounts, keys
from services.users import service as users
from services.users.accounts import Account
from tests import databases
from tests.certificates import channel_to, credentials_of
from tests.people import People, Person, WithToken, refused_soon
from tests.running import DATABASES, PASSWORD, RunningSuite

# What the suite promises to do within a second takes longer on a machine that is busy.
_PATIENCE_SECONDS = 10.0


async def log_in(people: People, login: str, password: str = PASSWORD, **fields: str) -> accounts_pb2.LoginResponse:
    """Begin a session."""
    request = accounts_pb2.LoginRequest(login=login, password=password, **fields)
    response: accounts_pb2.LoginResponse = await people.stranger.accounts.Login(request)
    return response


async def refresh(people: People, refresh_token: str) -> accounts_pb2.RefreshSessionResponse:
    """Exchange a refresh token for the next pair."""
    request = accounts_pb2.RefreshSessionRequest(refresh_token=refresh_token)
    response: accounts_pb2.RefreshSessionResponse = await people.stranger.accounts.RefreshSession(request)
    return response


async def listed(person: Person) -> list[accounts_pb2.Session]:
    """Somebody's sessions as they see them."""
    return list((await person.accounts.ListSessions(accounts_pb2.ListSessionsRequest())).sessions)


def holder(people: People, tokens: accounts_pb2.LoginResponse | accounts_pb2.RefreshSessionResponse) -> Person:
    """Who calls with an access token."""
    claims = claims_of(tokens.access_token)
    return Person(people.channel, int(claims["sub"]), token=tokens.access_token)


def claims_of(access_token: str) -> dict[str, Any]:
    """What a token says, signed or not."""
    claims: dict[str, Any] = jwt.decode(access_token, options={"verify_signature": False})
    return claims


async def eventually(condition: Callable[[], Awaitable[Any]]) -> Any:
    """What a condition answers once it is true."""
    async with asyncio.timeout(_PATIENCE_SECONDS):
        while True:
            if answer := await condition():
                return answer
            await asyncio.sleep(0.02)


async def refused_everywhere(suite: RunningSuite, person: Person) -> None:
    """The tokens of an ended session are refused: where it is read and changed, by every part that listens."""
    calls: list[Callable[[], Awaitable[Any]]] = [
        lambda: person.accounts.ListSessions(accounts_pb2.ListSessionsRequest()),
        lambda: person.posts.CreatePost(posts_pb2.CreatePostRequest(title="Late")),
    ]
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(refused_soon(call)) for call in calls]
        if "posts" in suite.addresses:
            tasks += [group.create_task(refused_soon(call)) for call in _direct(suite, person.token)]
    for task in tasks:
        failed = task.result()
        # Of an account that was deleted it may be known first that it is gone.
        assert failed.code is grpc.StatusCode.UNAUTHENTICATED, failed
        assert failed.reason in ("SESSION_ENDED", "TOKEN_INVALID"), failed


def _direct(suite: RunningSuite, token: str) -> list[Callable[[], Awaitable[Any]]]:
    """Changes at the services themselves, which the gateway makes for others."""
    posts = stored_posts_pb2_grpc.PostServiceStub(WithToken(part(suite, "posts"), token))
    likes = likes_pb2_grpc.LikeServiceStub(WithToken(part(suite, "social"), token))
    return [
        lambda: posts.CreatePost(stored_posts_pb2.CreatePostRequest(title="Late")),
        lambda: likes.LikePost(likes_pb2.LikePostRequest(post_id=1)),
    ]


def part(suite: RunningSuite, name: str) -> grpc.aio.Channel:
    """A channel to a part that runs apart, as the gateway has one."""
    return channel_to(name, suite.addresses[name], credentials_of(suite.certificates("gateway")))


@asynccontextmanager
async def people_at(address: str) -> AsyncIterator[People]:
    """People on a connection of their own."""
    made = People(address)
    yield made
    await made.channel.close()


@asynccontextmanager
async def people_from(source: str, address: str) -> AsyncIterator[People]:
    """People whose connection comes from another address of this machine, 127.0.0.2 for instance."""
    host, _, port = address.rpartition(":")
    passing: set[asyncio.Task[None]] = set()

    async def relay(client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        server, to_server = await asyncio.open_connection(host, int(port), local_addr=(source, 0))
        for read, write in ((client, to_server), (server, to_client)):
            passing.add(asyncio.create_task(_pass_on(read, write)))

    relaying = await asyncio.start_server(relay, "127.0.0.1", 0)
    async with people_at(f"127.0.0.1:{relaying.sockets[0].getsockname()[1]}") as people:
        yield people
    relaying.close()
    # gRPC keeps a connection open as long as anybody holds on to a call that was made over it.
    for task in passing:
        task.cancel()
    await asyncio.gather(*passing, return_exceptions=True)


async def _pass_on(read: asyncio.StreamReader, write: asyncio.StreamWriter) -> None:
    try:
        with suppress(ConnectionError):
            while chunk := await read.read(65536):
                write.write(chunk)
                await write.drain()
    finally:
        write.close()


@contextmanager
def users_store(folder: Path) -> Iterator[Store]:
    """A database of the users service that no suite uses."""
    assert users.SERVICE.migrations is not None
    opened = databases.open_store(folder / "users.db", users.SERVICE.migrations)
    opened.write_now(keys.ensure)
    opened.write_now(events.begin)
    yield opened
    opened.close()


def account(db: Database, username: str = "ana", **fields: Any) -> Account:
    """A new account, in a write."""
    made = {
        "username": username,
        "email": f"{username}@example.com",
        "password_hash": b"$2b$04$old",
        "first_name": "Ana",
        "last_name": "",
        "bio": "",
        **fields,
    }
    return accounts.create(db, **made)


def bytes_in(folder: Path) -> bytes:
    """All files of a folder and the databases of its suite, one after the other."""
    stored = [path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()]
    for name in DATABASES:
        stored += databases.everything(folder / f"{name}.db")
    return b"\0".join(stored)


class Time:
    """The clock of this process, which can be set on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._passed = 0
        now = clock.now
        monkeypatch.setattr(clock, "now", lambda: now() + self._passed)

    def pass_(self, *, days: float = 0, minutes: float = 0, seconds: float = 0) -> None:
        """Let time pass."""
        self._passed += int(((days * 24 * 60 + minutes) * 60 + seconds) * 1_000_000)
