"""Each method of each part, called by nobody, by whom its things belong to, by others, by staff and by superusers.

The parts run apart: those behind the gateway are called directly, too, and answer no less strictly.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Any

import grpc
import pytest
import pytest_asyncio
from google.protobuf import descriptor, message_factory
from grpc_channelz.v1 import channelz_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2

from insta.access.v1 import access_pb2
from insta.users.v1 import users_pb2, users_pb2_grpc
from tests.contracts.descriptors import Contracts, access, is_reading
from tests.contracts.policies import OK, POLICIES, STAFF_ONLY, SUPERUSER_ONLY, TOKEN_MISSING, Fields, Policy
from tests.contracts.scenario import Scenario, World
from tests.people import Failure, Person
from tests.running import running

CONTRACTS = Contracts()
WITHOUT_TOKEN = (access_pb2.Access.ACCESS_PUBLIC, access_pb2.Access.ACCESS_SERVICE)
METHODS = CONTRACTS.methods()
CHANNELZ = channelz_pb2.DESCRIPTOR.services_by_name["Channelz"]
PARTS = ("users", "posts", "social", "gateway")
every_part = pytest.mark.parametrize("part", PARTS)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def world(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    """A suite whose parts all listen."""
    # Nobody in the suite reads the log of social.
    allowed = "insta.social.v1.EventService=gateway"
    with running("apart", tmp_path_factory.mktemp("apart") / "var", INSTA_ALLOWED_CALLERS=allowed) as suite:
        made = World(suite)
        yield made
        await made.close()


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def standing(world: World) -> Scenario:
    """A scenario in which nobody changes anything."""
    return await world.scenario()


def test_the_table_holds_every_method_of_every_contract() -> None:
    assert {policy.method for policy in POLICIES} == METHODS.keys()


def test_the_table_says_what_the_contracts_declare() -> None:
    strangers = {
        access_pb2.Access.ACCESS_STAFF: STAFF_ONLY,
        access_pb2.Access.ACCESS_SUPERUSER: SUPERUSER_ONLY,
    }
    wrong = []
    for policy in POLICIES:
        declared = access(METHODS[policy.method])
        nobody = OK if declared in WITHOUT_TOKEN else TOKEN_MISSING
        if policy.nobody != nobody or policy.stranger != strangers.get(declared, policy.stranger):
            wrong.append(policy.method)

    assert wrong == []


@pytest.mark.parametrize("policy", POLICIES, ids=lambda policy: " ".join((policy.method, policy.case)).strip())
async def test_a_method_admits_whom_its_policy_names_and_refuses_the_others(
    policy: Policy, world: World, standing: Scenario
) -> None:
    part = policy.method.split(".")[1]
    method = CONTRACTS.callable(policy.method)
    changes = not is_reading(METHODS[policy.method])
    scenario = await world.scenario() if changes else standing
    expected = policy.answers()

    answers: dict[str, str] = {}
    for role in expected:
        if changes and OK in answers.values():
            scenario = await world.scenario()
        answers[role] = await _answer(world, part, scenario.person(role), method, policy.request(scenario))

    assert answers == expected


async def test_private_details_are_for_the_person_and_for_staff(world: World, standing: Scenario) -> None:
    seen = {}
    for role in ("owner", "stranger", "host", "staff", "superuser"):
        stub = users_pb2_grpc.UserServiceStub(world.channel("users", standing.person(role)))
        response = await stub.GetUser(users_pb2.GetUserRequest(user_id=standing.owner.id))
        seen[role] = response.user.HasField("private_details")

    assert seen == {"owner": True, "stranger": False, "host": False, "staff": True, "superuser": True}


@every_part
async def test_health_is_for_everybody(part: str, world: World) -> None:
    stub = health_pb2_grpc.HealthStub(world.channels[part])
    request = health_pb2.HealthCheckRequest()

    checked = await stub.Check(request, timeout=30)
    listed = await stub.List(health_pb2.HealthListRequest(), timeout=30)
    watch = stub.Watch(request, timeout=30)
    watched = await watch.read()
    watch.cancel()

    assert [checked.status, listed.statuses[""].status, watched.status] == [health_pb2.HealthCheckResponse.SERVING] * 3


@every_part
@pytest.mark.parametrize("version", ["v1", "v1alpha"])
async def test_reflection_is_for_everybody(part: str, version: str, world: World) -> None:
    call = world.channels[part].stream_stream(
        f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo",
        request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
        response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
    )

    (response,) = [
        response
        async for response in call(iter([reflection_pb2.ServerReflectionRequest(list_services="")]), timeout=30)
    ]

    listed = {service.name for service in response.list_services_response.service}
    own = {name.partition("/")[0] for name in METHODS if name.startswith(f"insta.{part}.")}
    assert {name for name in listed if name.startswith("insta.")} == own


@every_part
async def test_channelz_is_for_staff(part: str, world: World, standing: Scenario) -> None:
    nobody = {await _answer(world, part, standing.nobody, method, {}) for method in CHANNELZ.methods}
    stranger = {await _answer(world, part, standing.stranger, method, {}) for method in CHANNELZ.methods}
    servers = CHANNELZ.methods_by_name["GetServers"]
    admitted = {await _answer(world, part, person, servers, {}) for person in (standing.staff, standing.superuser)}

    assert (nobody, stranger, admitted) == ({TOKEN_MISSING}, {STAFF_ONLY}, {OK})


async def _answer(world: World, part: str, person: Person, method: descriptor.MethodDescriptor, fields: Fields) -> str:
    """How a call of a method ends: OK, or its code and reason."""
    request_class = message_factory.GetMessageClass(method.input_type)
    channel = world.channel(part, person)
    kinds = {(True, False): channel.stream_unary, (False, True): channel.unary_stream}
    call = kinds.get((method.client_streaming, method.server_streaming), channel.unary_unary)(
        f"/{method.containing_service.full_name}/{method.name}",
        request_serializer=request_class.SerializeToString,
        response_deserializer=message_factory.GetMessageClass(method.output_type).FromString,
    )
    request: Any = request_class(**fields) if isinstance(fields, Mapping) else [request_class(**f) for f in fields]
    try:
        if method.server_streaming:
            async for _ in call(request):
                pass
        else:
            await call(request)
    except grpc.aio.AioRpcError as error:
        failed = Failure(error)
        return f"{failed.code.name} {failed.reason}"
    return OK
