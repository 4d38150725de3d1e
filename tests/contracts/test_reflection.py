"""Reflection: people with grpcurl or buf in a terminal, and clients in any language, need nothing but the address."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
import pytest_asyncio
from google.protobuf import descriptor_database, descriptor_pb2, descriptor_pool
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import proto_reflection_descriptor_database, reflection_pb2

from chassis.reflection import V1, V1ALPHA
from tests.contracts.descriptors import Contracts
from tests.people import failure
from tests.running import PASSWORD, RunningSuite, running

VERSIONS = ("v1", "v1alpha")
PUBLIC = {
    f"insta.gateway.v1.{name}"
    for name in ("AccountService", "AdminService", "FeedService", "MediaService", "PostService", "ProfileService")
}
INFRASTRUCTURE = {
    "grpc.channelz.v1.Channelz",
    "grpc.health.v1.Health",
    "grpc.reflection.v1.ServerReflection",
    "grpc.reflection.v1alpha.ServerReflection",
}
# gRPC's code times eight is how buf ends.
UNAUTHENTICATED_IN_BUF = grpc.StatusCode.UNAUTHENTICATED.value[0] << 3
# A code and 64 is how grpcurl ends.
UNAUTHENTICATED_IN_GRPCURL = grpc.StatusCode.UNAUTHENTICATED.value[0] + 64
NOT_FOUND_IN_GRPCURL = grpc.StatusCode.NOT_FOUND.value[0] + 64

every_version = pytest.mark.parametrize("version", VERSIONS)
_names = itertools.count()

Command = Callable[..., subprocess.CompletedProcess[str]]


def _command(name: str, **environment: str) -> Command:
    binary = Path(sys.executable).parent / name
    if not binary.exists():
        pytest.skip(f"{name} is not installed in {binary.parent}")

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [binary, *arguments],
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    return run


@pytest.fixture(scope="session")
def grpcurl() -> Command:
    """Runs grpcurl, which speaks v1alpha."""
    run = _command("grpcurl")
    return lambda *arguments: run("-plaintext", *arguments)


@pytest.fixture(scope="session")
def buf_curl(tmp_path_factory: pytest.TempPathFactory) -> Command:
    """Runs `buf curl`, which is told the version to speak."""
    run = _command("buf", BUF_CACHE_DIR=str(tmp_path_factory.mktemp("buf")))
    return lambda *arguments: run("curl", "--http2-prior-knowledge", "--protocol", "grpc", *arguments)


@pytest.fixture(scope="module")
def token(together: RunningSuite, grpcurl: Command) -> str:
    """The token of somebody who registered and logged in with grpcurl alone."""
    username = f"reader{os.getpid()}_{next(_names)}"
    account = {"username": username, "email": f"{username}@example.com", "password": PASSWORD, "first_name": "Pat"}
    login = {"login": username, "password": PASSWORD}
    service = "insta.gateway.v1.AccountService"

    registered = grpcurl("-d", json.dumps(account), together.address, f"{service}/Register")
    assert registered.returncode == 0, registered.stderr
    logged_in = grpcurl("-d", json.dumps(login), together.address, f"{service}/Login")
    assert logged_in.returncode == 0, logged_in.stderr
    return str(json.loads(logged_in.stdout)["accessToken"])


def test_grpcurl_lists_services_and_methods(together: RunningSuite, grpcurl: Command) -> None:
    services = grpcurl(together.address, "list")
    methods = grpcurl(together.address, "list", "insta.gateway.v1.PostService")

    contract = {name.replace("/", ".") for name in Contracts().methods()}
    assert set(services.stdout.split()) == PUBLIC | INFRASTRUCTURE, services.stderr
    assert set(methods.stdout.split()) == {
        name for name in contract if name.startswith("insta.gateway.v1.PostService.")
    }


def test_grpcurl_describes_a_service_with_comments_and_access(together: RunningSuite, grpcurl: Command) -> None:
    described = grpcurl(together.address, "describe", "insta.gateway.v1.AdminService").stdout

    assert "// What staff can do with the accounts of others." in described
    assert "// Deletes somebody's account for good." in described
    assert "option (.insta.access.v1.access) = ACCESS_SUPERUSER;" in described


def test_grpcurl_describes_a_method_with_its_comment(together: RunningSuite, grpcurl: Command) -> None:
    described = grpcurl(together.address, "describe", "insta.gateway.v1.PostService.LikePost").stdout

    assert "is a method" in described
    assert "// Likes a post as the caller. Liking it again changes nothing" in described
    assert "option idempotency_level = IDEMPOTENT;" in described


def test_grpcurl_describes_a_message_with_comments_and_rules(together: RunningSuite, grpcurl: Command) -> None:
    described = grpcurl(together.address, "describe", "insta.gateway.v1.CreateCommentRequest").stdout

    assert "// 1 to 1,000 characters." in described
    assert "(.buf.validate.field) = { string:<min_len:1 max_len:1000 [insta.rules.v1.prose]:true" in described
    assert "jstype = JS_STRING" in described


def test_grpcurl_calls_with_a_token(together: RunningSuite, grpcurl: Command, token: str) -> None:
    called = grpcurl(
        "-H", f"authorization: Bearer {token}", "-d", '{"title": "First light"}',
        together.address, "insta.gateway.v1.PostService/CreatePost",
    )  # fmt: skip

    assert called.returncode == 0, called.stderr
    assert json.loads(called.stdout)["post"]["title"] == "First light"


def test_grpcurl_shows_why_a_call_failed(together: RunningSuite, grpcurl: Command, token: str) -> None:
    method = "insta.gateway.v1.PostService/GetPost"
    without_token = grpcurl("-d", '{"post_id": "1"}', together.address, method)
    authorization = ("-H", f"authorization: Bearer {token}")
    missing = grpcurl(*authorization, "-d", f'{{"post_id": "{2**40}"}}', together.address, method)
    broken = grpcurl(*authorization, "-d", '{"post_id": "-1"}', together.address, method)

    assert without_token.returncode == UNAUTHENTICATED_IN_GRPCURL
    assert '"reason":"TOKEN_MISSING"' in without_token.stderr
    assert missing.returncode == NOT_FOUND_IN_GRPCURL
    assert '"domain":"insta","reason":"POST_NOT_FOUND"' in missing.stderr
    assert '"reason":"INVALID_FIELDS"' in broken.stderr
    assert '"field":"post_id"' in broken.stderr


@every_version
def test_buf_lists_services_and_methods(version: str, together: RunningSuite, buf_curl: Command) -> None:
    address = f"http://{together.address}"
    services = buf_curl("--reflect-protocol", f"grpc-{version}", "--list-services", address)
    methods = buf_curl("--reflect-protocol", f"grpc-{version}", "--list-methods", address)

    assert set(services.stdout.split()) == PUBLIC | INFRASTRUCTURE, services.stderr
    assert methods.returncode == 0, methods.stderr
    assert {name for name in methods.stdout.split() if name.startswith("insta.")} == {
        name for name in Contracts().methods() if name.startswith("insta.gateway.")
    }


@every_version
def test_buf_calls_with_a_token(version: str, together: RunningSuite, buf_curl: Command, token: str) -> None:
    url = f"http://{together.address}/insta.gateway.v1.PostService/CreatePost"
    arguments = ("--reflect-protocol", f"grpc-{version}", "-d", '{"title": "First light"}')

    called = buf_curl(*arguments, "-H", f"authorization: Bearer {token}", url)
    without_token = buf_curl(*arguments, url)

    assert called.returncode == 0, called.stderr
    assert json.loads(called.stdout)["post"]["title"] == "First light"
    assert without_token.returncode == UNAUTHENTICATED_IN_BUF
    assert json.loads(without_token.stderr)["code"] == "unauthenticated"


class Reflection:
    """Asks one version of the protocol; their messages are the same on the wire."""

    def __init__(self, channel: grpc.aio.Channel, version: str) -> None:
        self._call = channel.stream_stream(
            f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo",
            request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
            response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
        )

    async def ask(self, *requests: dict[str, Any]) -> list[Any]:
        """The answers to some requests on one stream."""
        stream = self._call((reflection_pb2.ServerReflectionRequest(**request) for request in requests), timeout=30)
        return [response async for response in stream]

    async def files(self, **request: Any) -> list[descriptor_pb2.FileDescriptorProto]:
        """The files that answer a request."""
        (response,) = await self.ask(request)
        found = response.file_descriptor_response.file_descriptor_proto
        return [descriptor_pb2.FileDescriptorProto.FromString(file) for file in found]


@pytest_asyncio.fixture(params=VERSIONS)
async def reflection(request: pytest.FixtureRequest, together: RunningSuite) -> AsyncIterator[Reflection]:
    """The reflection of a running suite, in each version."""
    async with grpc.aio.insecure_channel(together.address) as channel:
        yield Reflection(channel, request.param)


@pytest.mark.parametrize(
    "symbol",
    [
        *sorted(PUBLIC | INFRASTRUCTURE),
        "insta.gateway.v1.Post",
        "insta.gateway.v1.Post.title",
        "insta.access.v1.Access",
        "insta.rules.v1.not_blank",
        "google.rpc.ErrorInfo",
    ],
)
async def test_a_symbol_is_answered_with_the_file_that_defines_it_and_all_that_this_imports(
    reflection: Reflection, symbol: str
) -> None:
    files = await reflection.files(file_containing_symbol=symbol)

    imported = {name for file in files for name in file.dependency}
    assert imported - {file.name for file in files} == set()
    answered = descriptor_database.DescriptorDatabase()
    for file in files:
        answered.Add(file)
    defining = descriptor_pool.DescriptorPool(answered).FindFileContainingSymbol(symbol)
    assert defining.name == files[0].name


async def test_files_are_found_by_name_by_method_and_by_extension(reflection: Reflection) -> None:
    by_method = await reflection.files(file_containing_symbol="insta.gateway.v1.PostService.LikePost")
    by_name = await reflection.files(file_by_filename="insta/gateway/v1/posts.proto")
    option = {"containing_type": "google.protobuf.MethodOptions", "extension_number": 50101}
    by_extension = await reflection.files(file_containing_extension=option)
    (numbers,) = await reflection.ask({"all_extension_numbers_of_type": "google.protobuf.MethodOptions"})

    assert by_name[0].name == "insta/gateway/v1/posts.proto"
    assert by_name[0].source_code_info.location
    assert by_name == by_method
    assert by_extension[0].name == "insta/access/v1/access.proto"
    assert 50101 in numbers.all_extension_numbers_response.extension_number


async def test_what_there_is_not_is_not_found_and_the_stream_goes_on(reflection: Reflection) -> None:
    answers = await reflection.ask(
        {"file_containing_symbol": "insta.gateway.v1.Nothing"},
        {"file_by_filename": "insta/nothing.proto"},
        {"file_containing_extension": {"containing_type": "insta.gateway.v1.Post", "extension_number": 1}},
        {"all_extension_numbers_of_type": "insta.gateway.v1.Nothing"},
        {"list_services": ""},
    )

    codes = [answer.error_response.error_code for answer in answers]
    assert codes == [grpc.StatusCode.NOT_FOUND.value[0]] * 4 + [0]
    assert {service.name for service in answers[-1].list_services_response.service} == PUBLIC | INFRASTRUCTURE


def test_pythons_own_client_builds_the_contracts_from_it(together: RunningSuite) -> None:
    with grpc.insecure_channel(together.address) as channel:
        database = proto_reflection_descriptor_database.ProtoReflectionDescriptorDatabase(channel)
        found = descriptor_pool.DescriptorPool(database).FindServiceByName("insta.gateway.v1.PostService")

        methods = {f"{found.full_name}/{method.name}" for method in found.methods}

    assert methods == {name for name in Contracts().methods() if name.startswith(f"{found.full_name}/")}


async def test_a_suite_told_not_to_reflect_says_nothing_and_works(tmp_path: Path) -> None:
    with running("together", tmp_path / "var", INSTA_REFLECTION="false") as suite:
        async with grpc.aio.insecure_channel(suite.address) as channel:
            # One request in place of a stream: writing to one that the server has ended already fails in the client.
            paths = [f"/{name}/ServerReflectionInfo" for name in (V1, V1ALPHA)]
            failed = [await failure(channel.unary_unary(path)(b"", timeout=30)) for path in paths]
            health = await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=30)

    assert [answer.code for answer in failed] == [grpc.StatusCode.UNIMPLEMENTED] * 2
    assert health.status == health_pb2.HealthCheckResponse.SERVING
