"""Bad input to the public API: every wrong field is named, nothing is stored, and nothing of the inside shows."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import grpc
import pytest
from google.protobuf import descriptor, message, message_factory

from insta.gateway.v1 import accounts_pb2, accounts_pb2_grpc, admin_pb2, media_pb2, posts_pb2, profiles_pb2
from tests.end_to_end.lists import everything
from tests.people import People, Person, failure
from tests.running import PASSWORD

INVALID_FIELDS = (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELDS")
MALFORMED_MESSAGE = (grpc.StatusCode.INVALID_ARGUMENT, "MALFORMED_MESSAGE")
TOKEN_INVALID = (grpc.StatusCode.UNAUTHENTICATED, "TOKEN_INVALID")
CONTROLS = ["\x00", "\x07", "\x1b[2J", "\x7f", "\x85"]
# They make text that follows them look as if it read the other way round.
BIDI_MARKS = ["\N{RIGHT-TO-LEFT OVERRIDE}", "\N{LEFT-TO-RIGHT EMBEDDING}", "\N{RIGHT-TO-LEFT ISOLATE}"]
LINE_BREAKS = ["\n", "\r", "\N{LINE SEPARATOR}", "\N{PARAGRAPH SEPARATOR}"]
SERVICES = {
    "accounts": accounts_pb2,
    "profiles": profiles_pb2,
    "posts": posts_pb2,
    "media": media_pb2,
    "admin": admin_pb2,
}
# Each method of the public API, with the name of its stub.
METHODS = [
    (stub, method)
    for stub, module in SERVICES.items()
    for service in module.DESCRIPTOR.services_by_name.values()
    for method in service.methods
    # Of streams: media/test_bad_input.py.
    if not (method.client_streaming or method.server_streaming)
]
BLANKS = [" ", "\N{NO-BREAK SPACE}\N{IDEOGRAPHIC SPACE}", "\N{ZERO WIDTH SPACE}", "\N{WORD JOINER}"]

NO_URLS = [
    "",
    "none",
    "javascript:alert(1)",
    "ftp://example.com/a.jpg",
    "data:image/png;base64,AAAA",
    "//example.com/a.jpg",
    "/a.jpg",
    "http://",
    "https:///a.jpg",
    " https://example.com/a.jpg",
    "https://example.com/a b.jpg",
    "https://example.com/\n",
    "https://example.com/" + "x" * 2029,
]


class Scene(NamedTuple):
    """What bad input could do harm to."""

    ana: Person
    boss: Person
    post: posts_pb2.Post
    comment: posts_pb2.Comment

    async def state(self) -> list[Any]:
        """All of it, as it is now."""
        newest = await self.boss.admin.ListUsers(admin_pb2.ListUsersRequest(page_size=1))
        own_posts = profiles_pb2.ListProfilePostsRequest(user_id=self.ana.id)
        comments = posts_pb2.ListCommentsRequest(post_id=self.post.id)
        return [
            newest.accounts[0],
            await self.ana.profile(self.ana),
            await everything(self.ana.profiles.ListProfilePosts, own_posts),
            await everything(self.ana.posts.ListComments, comments),
        ]


async def stage(ana: Person, boss: Person) -> Scene:
    post = await ana.post(description="Told", image_urls=["https://example.com/a.jpg"])
    return Scene(ana, boss, post, await ana.comment(post))


def registration(**fields: Any) -> accounts_pb2.RegisterRequest:
    wanted = {"username": "newcomer", "email": "newcomer@example.com", "password": PASSWORD, "first_name": "New"}
    return accounts_pb2.RegisterRequest(**{**wanted, **fields})


def account_update(**fields: Any) -> accounts_pb2.UpdateAccountRequest:
    return accounts_pb2.UpdateAccountRequest(account=accounts_pb2.Account(**fields))


async def assert_refused(scene: Scene, *cases: tuple[Any, message.Message, Sequence[str]]) -> None:
    """Calls fail, each naming all of the violated fields of its request, and change nothing."""
    before = await scene.state()

    failures = [await failure(call(request)) for call, request, _ in cases]

    for failed, (_, request, fields) in zip(failures, cases, strict=True):
        shown = repr(request)[:200]
        assert (failed.code, failed.reason) == INVALID_FIELDS, shown
        assert sorted(set(failed.fields)) == sorted(fields), shown
        assert len(failed.text) < 1000
    assert await scene.state() == before


@pytest.mark.parametrize(
    ("field", "values"),
    [
        (
            "username",
            ["", "ab", "x" * 31, "a b", "ana-maria", "ana\n", "ana\x00", "añá", "\N{CYRILLIC SMALL LETTER A}na"],
        ),
        ("username", [f"ana{mark}" for mark in (*BIDI_MARKS, *BLANKS)]),
        ("email", ["", "none", "a@", "@b.com", "a@b@c.com", "a b@c.com", "a@b.com\n", "a@b\x00", "a" * 250 + "@b.com"]),
        ("password", ["", "short", "x" * 257, "😀" * 7]),
        ("first_name", ["", "x" * 51, *BLANKS, *(f"A{bad}na" for bad in (*CONTROLS, *BIDI_MARKS, *LINE_BREAKS, "\t"))]),
        ("last_name", ["x" * 51, *(f"A{bad}na" for bad in (*CONTROLS, *BIDI_MARKS, *LINE_BREAKS, "\t"))]),
        ("bio", ["x" * 501, "x" * 3_000_000, *(f"A{bad}na" for bad in (*CONTROLS, *BIDI_MARKS))]),
    ],
)
async def test_an_account_takes_no_wrong_field(ana: Person, boss: Person, field: str, values: list[str]) -> None:
    scene = await stage(ana, boss)
    register, update = ana.accounts.Register, ana.accounts.UpdateAccount

    await assert_refused(scene, *((register, registration(**{field: value}), [field]) for value in values))
    if field != "password":
        # An empty value there means that the field stays as it is.
        given = [value for value in values if value]
        await assert_refused(
            scene, *((update, account_update(**{field: value}), [f"account.{field}"]) for value in given)
        )


@pytest.mark.parametrize(
    ("field", "values", "violated"),
    [
        ("title", ["x" * 256, "x" * 3_000_000, *BLANKS], "title"),
        ("title", [f"A{bad}B" for bad in (*CONTROLS, *BIDI_MARKS, *LINE_BREAKS)], "title"),
        ("description", ["x" * 2001, "x" * 3_000_000, "é" * 1_500_000], "description"),
        ("description", [f"A{bad}B" for bad in (*CONTROLS, *BIDI_MARKS)], "description"),
        ("image_urls", [["https://example.com/a.jpg"] * 11], "image_urls"),
        ("image_urls", [["https://example.com/a.jpg", url] for url in NO_URLS], "image_urls[1]"),
    ],
)
async def test_a_post_takes_no_wrong_field(
    ana: Person, boss: Person, field: str, values: list[Any], violated: str
) -> None:
    scene = await stage(ana, boss)
    new = [posts_pb2.CreatePostRequest(**{"title": "New", field: value}) for value in values]
    posts = [posts_pb2.Post(**{"id": scene.post.id, field: value}) for value in values]

    await assert_refused(scene, *((ana.posts.CreatePost, request, [violated]) for request in new))
    changes = [posts_pb2.UpdatePostRequest(post=post) for post in posts]
    await assert_refused(scene, *((ana.posts.UpdatePost, request, [f"post.{violated}"]) for request in changes))


async def test_a_comment_takes_no_wrong_text(ana: Person, boss: Person) -> None:
    scene = await stage(ana, boss)
    wrong = ["", "x" * 1001, "x" * 3_000_000, *BLANKS, *(f"A{bad}B" for bad in (*CONTROLS, *BIDI_MARKS))]
    new = [posts_pb2.CreateCommentRequest(post_id=scene.post.id, text=text) for text in wrong]
    changes = [posts_pb2.UpdateCommentRequest(comment_id=scene.comment.id, text=text) for text in wrong]

    await assert_refused(scene, *((ana.posts.CreateComment, request, ["text"]) for request in new))
    await assert_refused(scene, *((ana.posts.UpdateComment, request, ["text"]) for request in changes))


@pytest.mark.parametrize(
    ("method", "request_of", "violated"),
    [
        (
            "posts.UpdatePost",
            lambda scene: posts_pb2.UpdatePostRequest(post=posts_pb2.Post(title="New")),
            ["post.id"],
        ),
        ("posts.UpdatePost", lambda scene: posts_pb2.UpdatePostRequest(), ["post", "post.id"]),
        (
            "posts.UpdatePost",
            lambda scene: posts_pb2.UpdatePostRequest(
                post=posts_pb2.Post(id=scene.post.id), update_mask={"paths": ["title"]}
            ),
            ["post.title"],
        ),
        ("accounts.UpdateAccount", lambda scene: accounts_pb2.UpdateAccountRequest(), ["account"]),
        ("accounts.Login", lambda scene: accounts_pb2.LoginRequest(), ["login", "password"]),
        (
            "accounts.Login",
            lambda scene: accounts_pb2.LoginRequest(login="a\nb", password="x" * 257),
            ["login", "password"],
        ),
        (
            "accounts.ChangePassword",
            lambda scene: accounts_pb2.ChangePasswordRequest(),
            ["current_password", "new_password"],
        ),
        (
            "accounts.ChangePassword",
            lambda scene: accounts_pb2.ChangePasswordRequest(current_password=PASSWORD, new_password="short"),
            ["new_password"],
        ),
        ("accounts.DeleteAccount", lambda scene: accounts_pb2.DeleteAccountRequest(), ["password"]),
        ("profiles.GetProfile", lambda scene: profiles_pb2.GetProfileRequest(), ["person"]),
        ("profiles.GetProfile", lambda scene: profiles_pb2.GetProfileRequest(user_id=0), ["user_id"]),
        ("profiles.GetProfile", lambda scene: profiles_pb2.GetProfileRequest(username="a%"), ["username"]),
        ("profiles.BatchGetProfiles", lambda scene: profiles_pb2.BatchGetProfilesRequest(), ["user_ids"]),
        (
            "profiles.BatchGetProfiles",
            lambda scene: profiles_pb2.BatchGetProfilesRequest(user_ids=range(1, 102)),
            ["user_ids"],
        ),
        (
            "profiles.BatchGetProfiles",
            lambda scene: profiles_pb2.BatchGetProfilesRequest(user_ids=[1, 0, 2, -1]),
            ["user_ids[1]", "user_ids[3]"],
        ),
        ("posts.BatchGetPosts", lambda scene: posts_pb2.BatchGetPostsRequest(), ["post_ids"]),
        ("posts.BatchGetPosts", lambda scene: posts_pb2.BatchGetPostsRequest(post_ids=range(1, 102)), ["post_ids"]),
        ("posts.BatchGetPosts", lambda scene: posts_pb2.BatchGetPostsRequest(post_ids=[0]), ["post_ids[0]"]),
        ("admin.SetUserActive", lambda scene: admin_pb2.SetUserActiveRequest(user_id=scene.ana.id), ["active"]),
        (
            "admin.SetUserRoles",
            lambda scene: admin_pb2.SetUserRolesRequest(user_id=scene.ana.id),
            ["staff", "superuser"],
        ),
        ("admin.ListUsers", lambda scene: admin_pb2.ListUsersRequest(text="x" * 101), ["text"]),
        ("admin.ListUsers", lambda scene: admin_pb2.ListUsersRequest(text="a\x00b"), ["text"]),
    ],
)
async def test_what_is_missing_or_wrong_is_named(
    ana: Person, boss: Person, method: str, request_of: Callable[[Scene], message.Message], violated: list[str]
) -> None:
    scene = await stage(ana, boss)
    service, name = method.split(".")
    caller = boss if service == "admin" else ana

    await assert_refused(scene, (getattr(getattr(caller, service), name), request_of(scene), violated))


async def test_all_wrong_fields_are_named_at_once(ana: Person, boss: Person) -> None:
    scene = await stage(ana, boss)
    wrong = accounts_pb2.RegisterRequest(
        username="!", email="none", password="short", last_name="\n", bio="\x00", request_id="é"
    )
    fields = ["username", "email", "password", "first_name", "last_name", "bio", "request_id"]

    await assert_refused(scene, (ana.accounts.Register, wrong, fields))


async def test_no_method_takes_an_id_that_none_can_have(ana: Person, boss: Person) -> None:
    scene = await stage(ana, boss)
    names = ("user_id", "post_id", "comment_id", "media_id", "upload_id")

    await assert_refused(scene, *(case for name in names for case in wrong_in_all(scene, name, 0, -1, -(2**63))))


async def test_no_list_takes_a_page_size_out_of_bounds_or_a_token_longer_than_any(ana: Person, boss: Person) -> None:
    scene = await stage(ana, boss)
    sizes = wrong_in_all(scene, "page_size", -1, 101, 2**31 - 1, -(2**31))

    await assert_refused(scene, *sizes, *wrong_in_all(scene, "page_token", "A" * 129))


async def test_no_method_takes_a_wrong_request_id(ana: Person, boss: Person) -> None:
    scene = await stage(ana, boss)

    await assert_refused(scene, *wrong_in_all(scene, "request_id", "x" * 65, "a b", "a\x00", "a\n", "é"))


@pytest.mark.parametrize(
    ("method", "request_of_many"),
    [
        ("posts.CreatePost", posts_pb2.CreatePostRequest(title="New", image_urls=["x"] * 100_000)),
        ("posts.BatchGetPosts", posts_pb2.BatchGetPostsRequest(post_ids=[0] * 100_000)),
        ("profiles.BatchGetProfiles", profiles_pb2.BatchGetProfilesRequest(user_ids=[-1] * 100_000)),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_a_list_of_very_many_wrong_items_is_refused_at_once(
    ana: Person, method: str, request_of_many: message.Message
) -> None:
    service, name = method.split(".")
    (field,) = (field.name for field, _ in request_of_many.ListFields() if field.is_repeated)

    # Nobody else is served while a request is looked at.
    failed = await failure(getattr(getattr(ana, service), name)(request_of_many, timeout=1.5))

    assert (failed.code, failed.reason) == INVALID_FIELDS
    assert field in failed.fields


async def test_a_mask_that_fills_a_message_does_not_look_like_an_outage(ana: Person) -> None:
    request = account_update(email=f"mask{ana.id}@example.com")
    request.update_mask.paths.extend(["email"] * 580_000)

    try:
        answer = await ana.accounts.UpdateAccount(request)
        outcome = answer.account.email
    except grpc.aio.AioRpcError as error:
        outcome = error.code()

    assert outcome in (request.account.email, grpc.StatusCode.INVALID_ARGUMENT)


async def test_a_message_over_4_mib_is_refused(ana: Person, boss: Person) -> None:
    scene = await stage(ana, boss)
    before = await scene.state()

    failed = await failure(ana.post(description="x" * (4 * 1024 * 1024)))

    assert failed.code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert await scene.state() == before


@pytest.mark.parametrize(
    ("path", "sent"),
    [
        ("AccountService/Register", b"\xff\xff\xff\xff"),
        ("AccountService/Register", b"\x0a\x02\xff\xfe"),
        ("AccountService/Login", b"\x0a\x05ana"),
        ("AccountService/Login", b"\x0a\x04\xed\xa0\x80a"),
        ("PostService/CreatePost", b"\x0a\x01\xc0"),
        ("PostService/CreatePost", b"\x1a\x01\x80"),
        ("PostService/GetPost", b"\x08"),
        ("PostService/GetPost", b"\x08" + b"\xff" * 11),
        ("PostService/GetPost", b"\x0b" * 200),
        ("PostService/UpdatePost", b"\x0a\x7f\x08\x01"),
        ("ProfileService/GetProfile", b"\x12\x03\xe2\x82a"),
        ("AdminService/ListUsers", b"\x1a\x01\xff"),
        ("AccountService/GetAccount", b"\x00"),
    ],
)
async def test_bytes_that_are_no_message_are_refused(boss: Person, path: str, sent: bytes) -> None:
    failed = await failure(boss.channel.unary_unary(f"/insta.gateway.v1.{path}")(sent))

    assert (failed.code, failed.reason) == MALFORMED_MESSAGE


@pytest.mark.parametrize(
    "path",
    [
        "/insta.gateway.v1.PostService/StealPost",
        "/insta.gateway.v1.PostService/",
        "/insta.gateway.v1.ThiefService/GetPost",
        "/insta.gateway.v1.PostService/getPost",
        "/insta.posts.v1.PostService/GetPost",
        "/insta.users.v1.UserService/GetUser",
        "/insta.users.v1.AuthService/GetKeySet",
        "/insta.social.v1.LikeService/LikePost",
        "/",
        "/../insta.gateway.v1.PostService/GetPost",
    ],
)
async def test_a_method_that_is_not_of_the_public_api_is_not_implemented(boss: Person, path: str) -> None:
    failed = await failure(boss.channel.unary_unary(path)(b"\x08\x01"))

    assert failed.code is grpc.StatusCode.UNIMPLEMENTED


@pytest.mark.parametrize(
    "authorization",
    [
        "Basic YW5hOnBhc3N3b3Jk",
        "Bearer",
        "Bearer ",
        "Bearer none",
        "Bearer a.b.c",
        "Bearer ..",
        "Bearer eyJhbGciOiJub25lIn0.e30.",
        "Bearer " + base64.urlsafe_b64encode(b"[" * 3000).decode() + ".e30.AAAA",
        "Bearer "
        + base64.urlsafe_b64encode(json.dumps({"typ": "at+jwt", "alg": "EdDSA", "kid": 1}).encode()).decode()
        + ".e30.A",
        "Bearer " + base64.urlsafe_b64encode(json.dumps(["EdDSA"]).encode()).decode() + ".e30.AAAA",
        "Bearer " + "x" * 10_000,
        "Negotiate x",
        " ",
    ],
)
async def test_authorization_that_proves_nothing_is_refused(people: People, authorization: str) -> None:
    call = people.channel.unary_unary("/insta.gateway.v1.AccountService/GetAccount")

    failed = await failure(call(b"", metadata=(("authorization", authorization),), timeout=30))

    assert (failed.code, failed.reason) in (TOKEN_INVALID, (grpc.StatusCode.UNAUTHENTICATED, "TOKEN_MISSING"))


async def test_a_token_that_was_changed_is_refused(people: People, ana: Person) -> None:
    header, claims, signature = ana.token.split(".")
    others = json.loads(base64.urlsafe_b64decode(claims + "=="))
    others["roles"] = ["superuser"]
    forged_claims = base64.urlsafe_b64encode(json.dumps(others).encode()).decode().rstrip("=")
    no_algorithm = base64.urlsafe_b64encode(json.dumps({"typ": "at+jwt", "alg": "none"}).encode()).decode().rstrip("=")
    call = people.channel.unary_unary("/insta.gateway.v1.AccountService/GetAccount")

    for token in (
        f"{header}.{forged_claims}.{signature}",
        f"{no_algorithm}.{forged_claims}.",
        f"{header}.{claims}.",
        f"{header}.{claims}.{signature[::-1]}",
        f"{header}.{claims}",
        ana.token[:-4],
    ):
        failed = await failure(call(b"", metadata=(("authorization", f"Bearer {token}"),), timeout=30))
        assert (failed.code, failed.reason) == TOKEN_INVALID


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("traceparent", ""),
        ("traceparent", "none"),
        ("traceparent", "00-" + "g" * 32 + "-" + "0" * 16 + "-01"),
        ("traceparent", "00-" + "0" * 32 + "-" + "0" * 16 + "-01"),
        ("traceparent", "a" * 5000),
        ("traceparent", "00-4BF92F3577B34DA6A3CE929D0E0E4736-00F067AA0BA902B7-01"),
        ("traceparent-bin", b"\xff\x00"),
        ("x-request-id", "'; DROP TABLE user; --"),
        ("grpc-status-details-bin", b"\xff"),
    ],
)
async def test_odd_metadata_does_no_harm(people: People, ana: Person, key: str, value: str | bytes) -> None:
    stub = accounts_pb2_grpc.AccountServiceStub(people.channel)
    call = stub.GetAccount(
        accounts_pb2.GetAccountRequest(),
        metadata=(("authorization", f"Bearer {ana.token}"), (key, value)),
        timeout=30,
    )

    assert (await call).account.id == ana.id
    trace_id = dict(await call.trailing_metadata())["trace-id"]
    assert re.fullmatch("[0-9a-f]{32}", trace_id)
    assert int(trace_id, 16)


async def test_the_scheme_of_authorization_has_no_case(people: People, ana: Person) -> None:
    stub = accounts_pb2_grpc.AccountServiceStub(people.channel)

    for scheme in ("bearer", "BEARER"):
        metadata = (("authorization", f"{scheme} {ana.token}"),)
        answer = await stub.GetAccount(accounts_pb2.GetAccountRequest(), metadata=metadata, timeout=30)
        assert answer.account.id == ana.id


async def test_every_method_needs_a_token_but_those_that_lead_to_one(people: People) -> None:
    for stub, method in METHODS:
        if method.name not in ("Register", "Login", "RefreshSession"):
            request = message_factory.GetMessageClass(method.input_type)()
            failed = await failure(call_of(people.stranger, stub, method)(request))
            assert (failed.code, failed.reason) == (grpc.StatusCode.UNAUTHENTICATED, "TOKEN_MISSING"), method.full_name


def wrong_in_all(scene: Scene, field: str, *values: Any) -> list[tuple[Any, message.Message, list[str]]]:
    """Requests to all methods that take a field, right but for its value."""
    cases = []
    for stub, method in METHODS:
        for value in values if field in method.input_type.fields_by_name else ():
            request = valid(method, scene)
            setattr(request, field, value)
            cases.append((call_of(scene.boss, stub, method), request, [field]))
    assert cases
    return cases


def call_of(person: Person, stub: str, method: descriptor.MethodDescriptor) -> Any:
    return getattr(getattr(person, stub), method.name)


def valid(method: descriptor.MethodDescriptor, scene: Scene) -> Any:
    """A request that breaks no rule."""
    fields = {
        "user_id": scene.ana.id,
        "post_id": scene.post.id,
        "session_id": "session",
        "comment_id": scene.comment.id,
        "media_id": 1,
        "upload_id": 1,
        "content_type": "image/png",
        "size": 100,
        "text": "Text",
        "title": "Title",
        "active": True,
        "staff": False,
        "username": f"valid{scene.ana.id}",
        "email": f"valid{scene.ana.id}@example.com",
        "password": PASSWORD,
        "current_password": PASSWORD,
        "new_password": PASSWORD,
        "first_name": "First",
        "account": accounts_pb2.Account(bio="Bio"),
        "post": posts_pb2.Post(id=scene.post.id, title="Title"),
    }
    names = {field.name for field in method.input_type.fields if not field.containing_oneof}
    names |= {field.name for field in method.input_type.fields if field.name in ("active", "staff", "user_id")}
    request = message_factory.GetMessageClass(method.input_type)
    return request(**{name: value for name, value in fields.items() if name in names})
