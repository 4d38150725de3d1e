"""`insta check`: the health of running servers."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tests.running import RunningSuite, environment, insta_here


def free_port() -> int:
    """A port on which nothing listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def started(server: grpc.Server) -> tuple[grpc.Server, str]:
    """A server that is not of this suite, and its address."""
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    return server, f"127.0.0.1:{port}"


class OnlyAsAWhole(health_pb2_grpc.HealthServicer):
    """The health service as it was before it could list."""

    def __init__(self, status: health_pb2.HealthCheckResponse.ServingStatus.ValueType) -> None:
        self._status = status

    def Check(self, request: health_pb2.HealthCheckRequest, context: object) -> health_pb2.HealthCheckResponse:
        return health_pb2.HealthCheckResponse(status=self._status)


@contextmanager
def health_server(status: health_pb2.HealthCheckResponse.ServingStatus.ValueType) -> Iterator[str]:
    """Another server, which tells of itself as a whole only; its address."""
    server = grpc.server(ThreadPoolExecutor(1))
    health_pb2_grpc.add_HealthServicer_to_server(OnlyAsAWhole(status), server)
    _, address = started(server)
    try:
        yield address
    finally:
        server.stop(0).wait()


def test_a_running_suite_is_serving_in_all_its_services(together: RunningSuite) -> None:
    checked = insta_here("check", together.address, environment=together.environment)

    rows = [line.split() for line in checked.stdout.splitlines() if together.address in line]
    assert checked.returncode == 0, checked.stderr
    assert checked.stderr == ""
    assert {row[-3] for row in rows} >= {
        "whole",
        "insta.gateway.v1.AccountService",
        "insta.gateway.v1.AdminService",
        "insta.gateway.v1.PostService",
        "insta.gateway.v1.ProfileService",
    }
    assert {row[-2] for row in rows} == {"SERVING"}


def test_the_address_in_the_settings_is_asked_by_default(together: RunningSuite) -> None:
    checked = insta_here("check", environment={**together.environment, "INSTA_LISTEN": together.address})

    assert checked.returncode == 0
    assert together.address in checked.stdout


def test_an_address_without_a_server_is_told_in_a_sentence(tmp_path: Path) -> None:
    address = f"127.0.0.1:{free_port()}"

    checked = insta_here("check", address, environment=environment(tmp_path))

    assert checked.returncode == 1
    assert "NO ANSWER" in checked.stdout
    assert f"{address} cannot be reached" in checked.stderr
    assert "Traceback" not in checked.stderr


def test_one_dead_address_among_others_fails_the_check(together: RunningSuite) -> None:
    dead = f"127.0.0.1:{free_port()}"

    checked = insta_here("check", together.address, dead, environment=together.environment)

    assert checked.returncode == 1
    assert "SERVING" in checked.stdout
    assert dead in checked.stderr
    assert together.address not in checked.stderr


def test_a_server_that_accepts_and_says_nothing_is_given_up(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"

        checked = insta_here("check", address, "--timeout", "0.5", environment=environment(tmp_path))

    assert checked.returncode == 1
    assert address in checked.stderr
    assert "Traceback" not in checked.stderr


def test_a_server_that_only_checks_as_a_whole_is_understood(tmp_path: Path) -> None:
    with health_server(health_pb2.HealthCheckResponse.SERVING) as address:
        checked = insta_here("check", address, environment=environment(tmp_path))

    assert checked.returncode == 0, checked.stderr
    assert "the server as a whole" in checked.stdout


def test_a_server_that_is_not_serving_fails_the_check(tmp_path: Path) -> None:
    with health_server(health_pb2.HealthCheckResponse.NOT_SERVING) as address:
        checked = insta_here("check", address, environment=environment(tmp_path))

    assert checked.returncode == 1
    assert "NOT_SERVING" in checked.stdout


def test_a_server_without_the_health_service_is_told_apart(tmp_path: Path) -> None:
    server, address = started(grpc.server(ThreadPoolExecutor(1)))
    try:
        checked = insta_here("check", address, environment=environment(tmp_path))
    finally:
        server.stop(0).wait()

    assert checked.returncode == 1
    assert "no health service" in checked.stderr
