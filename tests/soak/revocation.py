"""How long revoked tokens are still accepted, by each process that verifies them."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

import grpc
import jwt
from grpc_channelz.v1 import channelz_pb2, channelz_pb2_grpc

from insta.gateway.v1 import accounts_pb2, admin_pb2
from tests.certificates import channel_to, credentials_of
from tests.people import People, Person, WithToken, failure
from tests.running import PASSWORD, RunningSuite

# To each a request is sent that breaks its rules: who holds the token is told before, and nothing is done after it.
_METHODS = {
    "gateway": "/insta.gateway.v1.PostService/GetPost",
    "users": "/insta.users.v1.UserService/BatchGetUsers",
    "posts": "/insta.posts.v1.PostService/BatchGetPosts",
    "social": "/insta.social.v1.StatsService/BatchGetUserStats",
}
# Connections until two workers are met: all others than the first would go to the same one in one of a billion cases.
_MOST_CONNECTIONS = 30


@dataclass(frozen=True)
class Lag:
    """How long a revoked token was accepted.

    Attributes:
        way: How it was revoked.
        seconds: From the answer of the call that revoked it until it was refused, by verifier.
    """

    way: str
    seconds: dict[str, float]


class Verifier:
    """A process that verifies tokens: the gateway, a worker, or a service apart."""

    def __init__(self, part: str, channel: grpc.aio.Channel) -> None:
        self.channel = channel
        self._call = channel.unary_unary(_METHODS[part])

    async def accepts(self, token: str) -> bool:
        """Whether a token is good here, which must be the token of a person or of a session that ended."""
        failed = await failure(self._call(b"", metadata=(("authorization", f"Bearer {token}"),), timeout=30))
        told = failed.code, failed.reason
        assert told in (
            (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELDS"),
            (grpc.StatusCode.UNAUTHENTICATED, "SESSION_ENDED"),
        ), failed
        return failed.code is grpc.StatusCode.INVALID_ARGUMENT

    async def lag(self, token: str, since: float) -> float:
        """Wait until a token is refused. How many seconds that was after a moment."""
        while await self.accepts(token):  # noqa: ASYNC110 (nothing tells)
            await asyncio.sleep(0.001)
        return time.perf_counter() - since


async def verifiers(suite: RunningSuite, boss: Person) -> dict[str, Verifier]:
    """All processes of a suite that verify tokens, by name."""
    if suite.mode != "workers":
        return {part: Verifier(part, _channel(suite, part)) for part in suite.addresses}
    workers: dict[str, Verifier] = {}
    for _ in range(_MOST_CONNECTIONS):
        channel = _channel(suite, "gateway")
        workers.setdefault(await _worker(channel, boss), Verifier("gateway", channel))
        if len(workers) == 2:
            return {f"worker {number}": worker for number, worker in enumerate(workers.values())}
    raise AssertionError("all connections lead to one worker")


def _channel(suite: RunningSuite, part: str) -> grpc.aio.Channel:
    """A connection of its own to a process, as the gateway has it."""
    credentials = None if part == "gateway" else credentials_of(suite.certificates("gateway"))
    return channel_to(part, suite.addresses[part], credentials)


async def _worker(channel: grpc.aio.Channel, boss: Person) -> str:
    """What only one worker answers: from which port the oldest of its connections comes."""
    channelz = channelz_pb2_grpc.ChannelzStub(WithToken(channel, boss.token))
    servers = (await channelz.GetServers(channelz_pb2.GetServersRequest())).server
    requests = [channelz_pb2.GetServerSocketsRequest(server_id=server.ref.server_id) for server in servers]
    sockets = [socket for request in requests for socket in (await channelz.GetServerSockets(request)).socket_ref]
    # Each also has a connection to itself, which has no port.
    clients = [socket for socket in sockets if "unix:" not in socket.name]
    return min(clients, key=lambda socket: socket.socket_id).name


async def _log_out(people: People, boss: Person, pat: Person) -> None:
    await pat.accounts.Logout(accounts_pb2.LogoutRequest())


async def _log_out_everywhere(people: People, boss: Person, pat: Person) -> None:
    await pat.accounts.LogoutEverywhere(accounts_pb2.LogoutEverywhereRequest())


async def _revoke_session(people: People, boss: Person, pat: Person) -> None:
    session_id = jwt.decode(pat.token, options={"verify_signature": False})["sid"]
    elsewhere = await people.log_in(pat.username)
    await elsewhere.accounts.RevokeSession(accounts_pb2.RevokeSessionRequest(session_id=session_id))


async def _change_password(people: People, boss: Person, pat: Person) -> None:
    request = accounts_pb2.ChangePasswordRequest(current_password=PASSWORD, new_password=f"{PASSWORD} 2")
    await pat.accounts.ChangePassword(request)


async def _deactivate(people: People, boss: Person, pat: Person) -> None:
    await boss.admin.SetUserActive(admin_pb2.SetUserActiveRequest(user_id=pat.id, active=False))


WAYS: dict[str, Callable[[People, Person, Person], Awaitable[None]]] = {
    "Logout": _log_out,
    "LogoutEverywhere": _log_out_everywhere,
    "RevokeSession": _revoke_session,
    "ChangePassword": _change_password,
    "SetUserActive": _deactivate,
}


async def lags(suite: RunningSuite, people: People, boss: Person, count: int) -> list[Lag]:
    """As `lags_at`, of all processes of a suite."""
    return await lags_at(await verifiers(suite, boss), people, boss, count)


async def lags_at(here: Mapping[str, Verifier], people: People, boss: Person, count: int) -> list[Lag]:
    """Revoke tokens, in all ways in turn, and see when each of these processes refuses them. Their channels are closed.

    Each token was used at each process before, so that it is remembered there.
    """
    found = []
    for way, revoke in itertools.islice(itertools.cycle(WAYS.items()), count):
        pat = await people.join()
        assert all([await verifier.accepts(pat.token) for verifier in here.values()])
        await revoke(people, boss, pat)
        since = time.perf_counter()
        seconds = await asyncio.gather(*(verifier.lag(pat.token, since) for verifier in here.values()))
        found.append(Lag(way, dict(zip(here, seconds, strict=True))))
    for verifier in here.values():
        await verifier.channel.close()
    return found
