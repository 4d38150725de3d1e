"""The suite as processes: how it starts, what it refuses to start, and how it lives through the end of each of them."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, closing, contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf import duration_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc

from insta.gateway.v1 import accounts_pb2, posts_pb2
from insta.users.v1 import events_pb2, events_pb2_grpc, users_pb2, users_pb2_grpc
from suite import authority
from tests import databases
from tests.certificates import channel_to, credentials_of
from tests.chassis.issuer import Issuer
from tests.people import People, Person, failure
from tests.running import MODES, ON_POSTGRESQL, PASSWORD, RunningSuite, environment, insta, running

COMMANDS = {**MODES, "one service": ("serve", "users")}
ME = accounts_pb2.GetAccountRequest()


@asynccontextmanager
async def people_of(address: str) -> AsyncIterator[People]:
    people = People(address)
    try:
        yield people
    finally:
        await people.channel.close()


@contextmanager
def taken() -> Iterator[str]:
    """An address of this machine on which something listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"127.0.0.1:{listener.getsockname()[1]}"


def free_address() -> str:
    """An address of this machine on which nothing listens."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{unused.getsockname()[1]}"


@contextmanager
def serving(name: str, given: dict[str, str]) -> Iterator[subprocess.Popen[str]]:
    """One service in a process of its own, ready to answer."""
    command = [sys.executable, "-m", "suite", "serve", name]
    with subprocess.Popen(command, env=certified(name, given), stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline().startswith(f"{name} ")
            yield process
        finally:
            process.kill()


def certified(name: str, given: dict[str, str]) -> dict[str, str]:
    """An environment with the certificate of a service."""
    folder = Path(given["INSTA_DATA"]) / "tls"
    authority.issue(folder, [name])
    return {**given, "INSTA_PEER_TLS": str(folder / name)}


def assert_refused(command: str, given: dict[str, str], *named: str) -> None:
    """The command must end with a sentence that names these, and with nothing that is none."""
    given = certified("users", given) if command == "one service" else given
    result = insta(*COMMANDS[command], environment=given)
    assert result.returncode == 1, result
    assert "Error: " in result.stderr
    assert "Traceback" not in result.stderr
    for name in named:
        assert name in result.stderr


async def until(condition: Callable[[], Any], seconds: float = 20) -> None:
    """Wait for something that nothing tells."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.02)


def children(suite: RunningSuite) -> set[int]:
    """The processes of a suite that has several."""
    assert suite.process is not None
    pid = suite.process.pid
    return set(map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()))


def command_line(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")


def alive(pid: int) -> bool:
    try:
        # A process that ended stays a zombie until its parent asks for it.
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.parametrize("command", COMMANDS)
def test_a_port_that_is_taken_is_refused_in_a_sentence(command: str, tmp_path: Path) -> None:
    with taken() as address:
        assert_refused(command, environment(tmp_path, INSTA_LISTEN=address), address, "INSTA_LISTEN=")


def test_a_folder_with_too_long_a_name_for_sockets_is_refused_in_a_sentence(tmp_path: Path) -> None:
    folder = tmp_path / ("x" * 100)
    folder.mkdir()

    assert_refused("together", {**environment(tmp_path), "TMPDIR": str(folder)}, "TMPDIR", str(folder))


@pytest.mark.parametrize("command", ["together", "workers"])
def test_a_port_that_is_taken_for_the_metrics_is_refused_in_a_sentence(command: str, tmp_path: Path) -> None:
    with taken() as address:
        assert_refused(command, environment(tmp_path, INSTA_METRICS_LISTEN=address), address, "INSTA_METRICS_LISTEN=")


@pytest.mark.parametrize("command", MODES)
def test_a_port_that_is_taken_for_images_is_refused_in_a_sentence(command: str, tmp_path: Path) -> None:
    with taken() as address:
        assert_refused(command, environment(tmp_path, INSTA_MEDIA_LISTEN=address), address, "INSTA_MEDIA_LISTEN=")


@pytest.mark.sqlite
@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("together", "workers"),
        ("apart", "together"),
        pytest.param("together", "one service", marks=pytest.mark.soak),
        pytest.param("workers", "apart", marks=pytest.mark.soak),
    ],
)
def test_a_second_suite_on_the_same_data_is_refused_in_a_sentence(first: str, second: str, tmp_path: Path) -> None:
    with running(first, tmp_path, superuser=False):
        assert_refused(second, environment(tmp_path), "INSTA_DATA", str(tmp_path))


@pytest.mark.sqlite
@pytest.mark.parametrize("second", ["together", "one service"])
def test_a_suite_is_refused_where_one_of_its_services_runs(second: str, tmp_path: Path) -> None:
    with serving("users", environment(tmp_path)):
        assert_refused(second, environment(tmp_path), "INSTA_DATA", str(tmp_path))


@pytest.mark.parametrize("command", MODES)
def test_what_others_could_read_is_refused_in_a_sentence(command: str, tmp_path: Path) -> None:
    # The parts behind the gateway are encrypted in any case.
    given = environment(tmp_path, INSTA_LISTEN="0.0.0.0:0")
    assert_refused(command, given, "0.0.0.0:", "INSTA_INSECURE_PLAINTEXT", "--insecure-plaintext")


@pytest.mark.parametrize("command", ["together", "workers"])
def test_metrics_that_others_could_read_are_refused_in_a_sentence(command: str, tmp_path: Path) -> None:
    given = environment(tmp_path, INSTA_METRICS_LISTEN="0.0.0.0:0")
    assert_refused(command, given, "0.0.0.0:", "INSTA_INSECURE_PLAINTEXT")


@pytest.mark.parametrize("command", MODES)
def test_images_that_nothing_encrypts_beyond_this_machine_are_refused_in_a_sentence(
    command: str, tmp_path: Path
) -> None:
    given = environment(tmp_path, INSTA_MEDIA_LISTEN="0.0.0.0:0")
    assert_refused(command, given, "0.0.0.0:", "INSTA_INSECURE_PLAINTEXT")


async def test_a_suite_listens_beyond_this_machine_if_it_is_told_to(tmp_path: Path) -> None:
    with running(
        "workers", tmp_path, superuser=False, INSTA_LISTEN="0.0.0.0:0", INSTA_INSECURE_PLAINTEXT="true"
    ) as suite:
        async with people_of(suite.address.replace("0.0.0.0", "127.0.0.1")) as people:
            assert (await people.join()).id


async def test_a_suite_answers_soon_after_its_start(tmp_path: Path) -> None:
    """Within 3 seconds; the best of three, as others use the machine too."""
    with running("together", tmp_path, superuser=False):
        pass
    seconds = []
    while not seconds or (min(seconds) > 3 and len(seconds) < 3):
        began = time.monotonic()
        with running("together", tmp_path, superuser=False) as suite:
            async with people_of(suite.address) as people:
                await failure(people.stranger.accounts.GetAccount(ME))
                seconds.append(time.monotonic() - began)

    assert min(seconds) < 3


@pytest.mark.parametrize(
    ("mode", "sent"),
    [
        ("together", signal.SIGINT),
        ("apart", signal.SIGTERM),
        pytest.param("together", signal.SIGTERM, marks=pytest.mark.soak),
        pytest.param("workers", signal.SIGTERM, marks=pytest.mark.soak),
    ],
)
async def test_a_stop_loses_nothing_that_was_answered(mode: str, sent: signal.Signals, tmp_path: Path) -> None:
    answered: list[int] = []

    async def write(person: Person) -> grpc.StatusCode:
        while True:
            try:
                answered.append((await person.post()).id)
            except grpc.aio.AioRpcError as failed:
                return failed.code()

    with running(mode, tmp_path, superuser=False) as suite:
        async with people_of(suite.address) as people:
            ana = await people.join()
            writing = [asyncio.ensure_future(write(ana)) for _ in range(8)]
            await until(lambda: len(answered) > 50)
            assert suite.process is not None
            began = time.monotonic()
            suite.process.send_signal(sent)
            codes = await asyncio.gather(*writing)
            await until(lambda: suite.process.poll() is not None)
            seconds = time.monotonic() - began
    assert suite.process.returncode == 0
    assert seconds < 5
    assert set(codes) <= {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED}

    with running("together", tmp_path, superuser=False) as suite:
        async with people_of(suite.address) as people:
            ana = await people.log_in(ana.username)
            found: list[int] = []
            for start in range(0, len(answered), 100):
                request = posts_pb2.BatchGetPostsRequest(post_ids=answered[start : start + 100])
                found += [post.id for post in (await ana.posts.BatchGetPosts(request)).posts]
    assert found == answered


async def test_a_part_that_is_told_to_stop_answers_what_it_has_begun_stores_it_and_lets_nobody_hang(
    tmp_path: Path,
) -> None:
    """SIGTERM: NOT_SERVING, streams end, readers of the event log are answered, calls under way too, and exit 0."""
    address, metrics = free_address(), free_address()
    given = environment(tmp_path, INSTA_LISTEN=address, INSTA_METRICS_LISTEN=metrics, INSTA_BCRYPT_COST="14")
    given["INSTA_DRAIN_SECONDS"] = "60"
    authority.issue(tmp_path / "tls", ["gateway"])
    with serving("users", given) as process:
        async with channel_to("users", address, credentials_of(tmp_path / "tls" / "gateway")) as channel:
            log_of_users = events_pb2_grpc.EventServiceStub(channel)
            watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
            assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVING
            head = (await log_of_users.ReadEvents(events_pb2.ReadEventsRequest(), timeout=30)).head_offset
            request = events_pb2.ReadEventsRequest(offset=head, wait=duration_pb2.Duration(seconds=30))
            reading = [log_of_users.ReadEvents(request, timeout=60) for _ in range(3)]
            # The service reads its own log, too.
            await until(lambda: in_flight(metrics, "EventService") == 4)
            # The password takes the better part of a second.
            wanted = users_pb2.CreateUserRequest(
                username="ana", email="ana@example.com", password=PASSWORD, first_name="Ana"
            )
            creating = asyncio.ensure_future(users_pb2_grpc.UserServiceStub(channel).CreateUser(wanted, timeout=60))
            await until(lambda: in_flight(metrics, "UserService") == 1)
            began = time.monotonic()
            process.send_signal(signal.SIGTERM)

            assert (await watch.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING
            assert await watch.read() is grpc.aio.EOF
            created = await creating
            assert [(await call).epoch for call in reading]
            assert await asyncio.to_thread(process.wait, 60) == 0
            # The readers alone would have waited for longer.
            assert time.monotonic() - began < 25

    with closing(databases.Connection(tmp_path / "users.db")) as database:
        assert database.execute('SELECT id, username FROM "user"') == [(created.user.id, "ana")]


def in_flight(metrics: str, service: str) -> float:
    """How many calls of a service are under way in a process."""
    gauge = rf'^insta_calls_in_flight{{service="insta\.\w+\.v1\.{service}"}} (\S+)$'
    with urllib.request.urlopen(f"http://{metrics}/metrics", timeout=5) as page:
        return sum(map(float, re.findall(gauge, page.read().decode(), re.MULTILINE)))


async def test_a_worker_that_is_killed_is_replaced_while_the_other_answers(tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        suite = stack.enter_context(running("workers", tmp_path, superuser=False))
        # The system spreads connections, not calls, over the workers.
        connections = [await stack.enter_async_context(people_of(suite.address)) for _ in range(8)]
        ana = await connections[0].join()
        persons = [Person(people.channel, token=ana.token) for people in connections]
        before = children(suite)
        killed = min(before)
        os.kill(killed, signal.SIGKILL)

        def replaced() -> bool:
            now = children(suite)
            return killed not in now and len(now) == len(before)

        calls = 0
        while calls < 50 or not replaced():
            await asyncio.gather(*(there(person.accounts.GetAccount, ME) for person in persons))
            calls += 1

        assert children(suite) - before
        post = await there(ana.post)
        assert (await there(ana.see, post)).id == post.id


async def test_the_metrics_of_all_workers_add_up_whatever_becomes_of_them(tmp_path: Path) -> None:
    counter = re.compile(
        r'^insta_calls_total\{code="OK",method="insta\.gateway\.v1\.AccountService/GetAccount"\} (\S+)$', re.MULTILINE
    )

    log_size = re.compile(r'^insta_wal_bytes\{database="users"\} (\S+)$', re.MULTILINE)

    def told(metric: re.Pattern[str]) -> list[float]:
        with urllib.request.urlopen(suite.metrics_url, timeout=5) as page:
            return list(map(float, metric.findall(page.read().decode())))

    def counted() -> float:
        return sum(told(counter))

    def log_size_is_told() -> bool:
        # They have the log in common; a server has its own.
        if ON_POSTGRESQL:
            return told(log_size) == []
        return told(log_size) == [(tmp_path / "users.db-wal").stat().st_size]

    async with AsyncExitStack() as stack:
        suite = stack.enter_context(running("workers", tmp_path, superuser=False))
        connections = [await stack.enter_async_context(people_of(suite.address)) for _ in range(16)]
        ana = await connections[0].join()
        for people in connections:
            for _ in range(5):
                await Person(people.channel, token=ana.token).accounts.GetAccount(ME)
        assert counted() == 80
        await until(log_size_is_told)

        killed = min(children(suite))
        os.kill(killed, signal.SIGKILL)
        await until(lambda: killed not in children(suite))

        assert counted() == 80
        await until(log_size_is_told)


@pytest.mark.parametrize("mode", ["workers", "apart"])
async def test_the_processes_of_a_suite_end_with_their_supervisor(mode: str, tmp_path: Path) -> None:
    with running(mode, tmp_path, superuser=False) as suite:
        processes = children(suite)
        assert len(processes) == {"workers": 2, "apart": 4}[mode]
        assert suite.process is not None
        suite.process.kill()

        await until(lambda: not any(map(alive, processes)))

    with running("together", tmp_path, superuser=False) as suite:
        async with people_of(suite.address) as people:
            await people.join()


async def test_a_service_apart_that_is_killed_is_started_again(tmp_path: Path) -> None:
    with running("apart", tmp_path, superuser=False) as suite:
        async with people_of(suite.address) as people:
            ana = await people.join()
            before = children(suite)
            os.kill(next(pid for pid in before if "serve posts" in command_line(pid)), signal.SIGKILL)
            await until(lambda: len(children(suite)) == 4 and children(suite) != before)

            assert (await there(ana.post)).id


async def test_the_gateway_says_that_users_is_away_until_it_is_there(tmp_path: Path) -> None:
    address = free_address()
    given = environment(tmp_path, INSTA_USERS_ADDRESS=address)
    apart = {**given, "INSTA_LISTEN": free_address()}

    with serving("gateway", apart):
        async with people_of(apart["INSTA_LISTEN"]) as people:
            login = accounts_pb2.LoginRequest(login="ana", password="correct horse")
            await assert_away(people.stranger.accounts.Login(login))
            # Nobody can tell yet whether this is a token.
            await assert_away(Person(people.channel, token=Issuer().token()).accounts.GetAccount(ME))

            with serving("users", {**given, "INSTA_LISTEN": address}):
                ana = await there(people.join)
            await assert_away(ana.accounts.GetAccount(ME))

            with serving("users", {**given, "INSTA_LISTEN": address}):
                assert (await there(ana.accounts.GetAccount, ME)).account.id == ana.id


async def assert_away(call: Any) -> None:
    failed = await failure(call)
    assert (failed.code, failed.reason) == (grpc.StatusCode.UNAVAILABLE, "UNAVAILABLE")
    assert failed.retry_after


async def there(call: Callable[..., Any], *args: Any) -> Any:
    """The answer to a call once what it needs is there again: a client tries again while it is UNAVAILABLE."""
    async with asyncio.timeout(10):
        while True:
            try:
                return await call(*args)
            except grpc.aio.AioRpcError as failed:
                assert failed.code() is grpc.StatusCode.UNAVAILABLE  # noqa: PT017
                await asyncio.sleep(0.05)
