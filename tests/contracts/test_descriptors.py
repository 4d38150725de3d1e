"""What holds for every contract of the suite: comments, access, bounds, pages, ids, secrets and reasons."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from google.protobuf import descriptor_pb2

from chassis import errors
from insta.access.v1 import access_pb2
from insta.errors.v1 import errors_pb2
from tests.contracts.descriptors import Contracts, Field, access, is_reading, rules

PROJECT = Path(__file__).parents[2]
PUBLIC_API = "insta.gateway.v1"
# What any contract may stand on, besides those of its own package.
SHARED = ("insta/access/", "insta/errors/", "insta/rules/", "buf/validate/", "google/protobuf/")

# Lists that answer everything at once.
UNPAGED = {
    "insta.social.v1.FollowService/ListFolloweeIds": "nobody follows more than 10,000 accounts (FOLLOW_LIMIT)",
    "insta.gateway.v1.AccountService/ListSessions": "nobody has more than 50 sessions",
    "insta.users.v1.SessionService/ListSessions": "nobody has more than 50 sessions",
}
# Methods that have effects and take no request_id.
NOT_IDEMPOTENT = {
    "insta.gateway.v1.AccountService/Login": "stores nothing: a second token does no harm, and a stored one would",
    "insta.users.v1.AuthService/Login": "stores nothing: a second token does no harm, and a stored one would",
    "insta.gateway.v1.AccountService/RefreshSession": "its token works once: it tells a retry from a second request",
    "insta.users.v1.SessionService/RefreshSession": "its token works once: it tells a retry from a second request",
}
# Random, so that nobody learns from one how many there are: text.
OPAQUE_IDS = {
    "insta.gateway.v1.Session.id",
    "insta.gateway.v1.RevokeSessionRequest.session_id",
    "insta.users.v1.Session.id",
    "insta.users.v1.RevokeSessionRequest.session_id",
    "insta.users.v1.SessionsEnded.session_ids",
}
PAGE_TOKENS = ("page_token", "next_page_token")

STATUS_CODES = {code.name for code in grpc.StatusCode}
REASONS = {name.removeprefix("REASON_") for name in errors_pb2.Reason.keys() if name != "REASON_UNSPECIFIED"}  # noqa: SIM118
_CODE_WITH_REASONS = re.compile(r"\b([A-Z][A-Z_]+)\s+\(([^()]*)\)")
_UPPER_SNAKE = re.compile(r"\b[A-Z][A-Z0-9]*(?:_[A-Z0-9]+)+\b")
_UPPER = re.compile(r"\b[A-Z][A-Z_]{2,}\b")


@pytest.fixture(scope="module")
def contracts() -> Contracts:
    return Contracts()


def test_the_walk_meets_every_kind_of_element(contracts: Contracts) -> None:
    names = {element.name for element in contracts.elements}

    assert names >= {
        "insta/rules/v1/rules.proto",
        "insta.rules.v1.line",
        "insta.access.v1.Access",
        "insta.access.v1.Access.ACCESS_USER",
        "insta.gateway.v1.PostService",
        "insta.gateway.v1.PostService.LikePost",
        "insta.gateway.v1.Post",
        "insta.gateway.v1.Post.title",
        "insta.gateway.v1.GetProfileRequest.person",
    }
    assert {file.name for file in contracts.files} == {
        str(path.relative_to(PROJECT / "protos")) for path in (PROJECT / "protos").rglob("*.proto")
    }


def test_everything_has_a_comment(contracts: Contracts) -> None:
    assert [element.name for element in contracts.elements if not element.comment] == []


def test_every_method_declares_who_may_call_it(contracts: Contracts) -> None:
    undeclared = [
        name for name, method in contracts.methods().items() if access(method) == access_pb2.Access.ACCESS_UNSPECIFIED
    ]

    assert undeclared == []


def test_every_method_has_a_request_and_a_response_of_its_own(contracts: Contracts) -> None:
    strangers = []
    for name, method in contracts.methods().items():
        package = name.rpartition("/")[0].rpartition(".")[0]
        own = (f".{package}.{method.name}Request", f".{package}.{method.name}Response")
        if (method.input_type, method.output_type) != own:
            strangers.append(name)
    types = [
        type_name for method in contracts.methods().values() for type_name in (method.input_type, method.output_type)
    ]

    assert strangers == []
    assert len(types) == len(set(types))


def test_a_request_can_hold_nothing_without_a_bound(contracts: Contracts) -> None:
    unbounded = {
        name
        for method in contracts.methods().values()
        for name, field in contracts.reachable(method.input_type).items()
        if not _is_bounded(field)
    }

    assert sorted(unbounded) == []


def test_a_page_has_a_smallest_and_a_greatest_size(contracts: Contracts) -> None:
    sizes = {name: field for name, field in contracts.fields().items() if field.name == "page_size"}
    unbounded = [
        name
        for name, field in sizes.items()
        if field.type != Field.TYPE_INT32
        or not rules(field).int32.WhichOneof("less_than")
        or not rules(field).int32.WhichOneof("greater_than")
    ]

    assert sizes
    assert unbounded == []


def test_every_list_comes_in_pages(contracts: Contracts) -> None:
    lists = {name: method for name, method in contracts.methods().items() if method.name.startswith("List")}
    unpaged = []
    for name, method in lists.items():
        request = {field.name for field in contracts.message(method.input_type).field}
        response = {field.name for field in contracts.message(method.output_type).field}
        if not {"page_size", "page_token"} <= request or "next_page_token" not in response:
            unpaged.append(name)

    assert sorted(unpaged) == sorted(UNPAGED)


def test_what_has_effects_can_be_retried_under_a_request_id_and_what_has_none_takes_none(contracts: Contracts) -> None:
    reading, without = [], []
    for name, method in contracts.methods().items():
        takes = any(field.name == "request_id" for field in contracts.reachable(method.input_type).values())
        if is_reading(method) and takes:
            reading.append(name)
        if not is_reading(method) and not takes:
            without.append(name)

    assert reading == []
    assert sorted(without) == sorted(NOT_IDEMPOTENT)


def test_every_id_is_an_int64_that_javascript_sees_as_a_string(contracts: Contracts) -> None:
    ids = {
        name: field
        for name, field in contracts.fields().items()
        if (field.name == "id" or field.name.endswith(("_id", "_ids")))
        and name not in OPAQUE_IDS
        and field.name != "request_id"
    }
    wrong = [
        name
        for name, field in ids.items()
        if field.type != Field.TYPE_INT64 or field.options.jstype != descriptor_pb2.FieldOptions.JS_STRING
    ]

    assert ids
    assert wrong == []


def test_every_event_has_a_place_for_its_offset_its_time_and_its_trace(contracts: Contracts) -> None:
    logs = {name.partition(".EventService")[0] for name in contracts.methods() if ".EventService/ReadEvents" in name}
    fields = contracts.fields()

    assert logs == {"insta.users.v1", "insta.posts.v1", "insta.social.v1"}
    for package in logs:
        numbers = [fields[f"{package}.Event.{name}"].number for name in ("offset", "time", "traceparent")]
        assert numbers == [1, 2, 15]


def test_secrets_are_redacted_where_messages_are_printed(contracts: Contracts) -> None:
    secrets = {
        name: field
        for name, field in contracts.fields().items()
        if re.search("password|token|secret", field.name) and field.name not in PAGE_TOKENS
    }

    assert "insta.users.v1.LoginResponse.access_token" in secrets
    assert [name for name, field in secrets.items() if not field.options.debug_redact] == []


def test_the_public_api_is_made_of_its_own_messages(contracts: Contracts) -> None:
    foreign = [
        name
        for name, field in contracts.fields().items()
        if name.startswith(f"{PUBLIC_API}.")
        and field.type_name
        and not field.type_name.startswith((f".{PUBLIC_API}.", ".google.protobuf."))
    ]

    assert foreign == []


def test_no_contract_stands_on_that_of_another_part(contracts: Contracts) -> None:
    foreign = [
        (file.name, imported)
        for file in contracts.files
        for imported in file.dependency
        if not imported.startswith((*SHARED, file.name.rpartition("/")[0] + "/"))
    ]

    assert foreign == []


def test_every_reason_that_a_comment_names_exists_and_has_the_code_that_it_is_named_with(contracts: Contracts) -> None:
    code_of = _codes_of_reasons(contracts)
    named = set()
    wrong = []
    for element in contracts.elements:
        for code, text in _CODE_WITH_REASONS.findall(element.comment):
            reasons = set(_UPPER.findall(text)) if code in STATUS_CODES else set()
            named |= reasons
            wrong += [(element.name, reason) for reason in reasons if code_of.get(reason) != code]
        known = REASONS | STATUS_CODES | {element.proto.name}
        words = (word.removeprefix("REASON_") for word in _UPPER_SNAKE.findall(element.comment))
        wrong += [(element.name, word) for word in words if word not in known]

    assert {"POST_NOT_FOUND", "NOT_OWNER", "LAST_SUPERUSER"} <= named
    assert wrong == []


def test_every_reason_is_used() -> None:
    sources = "".join(path.read_text() for path in _sources())

    assert [reason for reason in sorted(REASONS) if not re.search(rf"\bREASON_{reason}\b", sources)] == []


def test_every_reason_is_raised_with_the_code_that_its_contract_names(contracts: Contracts) -> None:
    code_of = _codes_of_reasons(contracts)
    raised = [place for path in _sources() for place in _raised(path)]

    assert raised
    assert [(path, code, reason) for path, code, reason in raised if code_of[reason] != code] == []


def _is_bounded(field: Field) -> bool:
    """Whether the contract limits the size of what a field can hold. Numbers and messages are limited by themselves."""
    declared = rules(field)
    if field.type_name.startswith(".google.protobuf."):
        known = field.type_name.rpartition(".")[2]
        return known in ("Timestamp", "Duration") or (
            known == "FieldMask" and len(getattr(declared.field_mask, "in")) > 0
        )
    if field.label != Field.LABEL_REPEATED:
        return _is_bounded_text(field, declared)
    if declared.WhichOneof("type") == "map":
        raise NotImplementedError(f"{field.name}: say what bounds a map, the first in a request")
    return declared.repeated.HasField("max_items") and _is_bounded_text(field, declared.repeated.items)


def _is_bounded_text(field: Field, declared: object) -> bool:
    kinds = {Field.TYPE_STRING: "string", Field.TYPE_BYTES: "bytes"}
    if field.type not in kinds:
        return True
    present = {limit.name for limit, _ in getattr(declared, kinds[field.type]).ListFields()}
    return bool(present & {"max_len", "len", "max_bytes", "len_bytes", "in", "const"})


def _codes_of_reasons(contracts: Contracts) -> dict[str, str]:
    """The status code of each reason, with which its comment begins."""
    prefix = "insta.errors.v1.Reason.REASON_"
    codes = {
        element.name.removeprefix(prefix): element.comment.partition(":")[0]
        for element in contracts.elements
        if element.name.startswith(prefix) and element.name != f"{prefix}UNSPECIFIED"
    }
    assert set(codes.values()) <= STATUS_CODES
    return codes


def _sources() -> Iterator[Path]:
    for part in ("chassis", "services", "gateway"):
        yield from (PROJECT / part).rglob("*.py")


def _raised(path: Path) -> Iterator[tuple[str, str, str]]:
    """Each error that a module makes of a class and a reason: where, its code, and the reason."""
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.Call) or not node.args:
            continue
        made = getattr(errors, ast.unparse(node.func).removeprefix("errors."), None)
        reason = ast.unparse(node.args[0]).rpartition("REASON_")[2]
        if isinstance(made, type) and issubclass(made, errors.Error) and reason in REASONS:
            yield str(path.relative_to(PROJECT)), made.code.name, reason


@pytest.mark.parametrize("message", ["Media", "Variant"])
def test_images_are_alike_in_both_contracts(contracts: Contracts, message: str) -> None:
    """The gateway makes its message of the bytes of the other."""
    stored, public = (
        [
            (field.name, field.number, field.type, field.label)
            for field in contracts.message(f"insta.{area}.v1.{message}").field
        ]
        for area in ("posts", "gateway")
    )

    assert stored == public
