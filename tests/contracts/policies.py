"""Who may call each method of the suite, as one table: what the contracts declare, and what their comments say."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tests.contracts.scenario import Scenario
from tests.people import small_picture
from tests.running import PASSWORD

OK = "OK"
TOKEN_MISSING = "UNAUTHENTICATED TOKEN_MISSING"
NOT_OWNER = "PERMISSION_DENIED NOT_OWNER"
STAFF_ONLY = "PERMISSION_DENIED STAFF_ONLY"
SUPERUSER_ONLY = "PERMISSION_DENIED SUPERUSER_ONLY"
WRONG_PASSWORD = "PERMISSION_DENIED WRONG_PASSWORD"
SESSION_NOT_FOUND = "NOT_FOUND SESSION_NOT_FOUND"
MEDIA_NOT_FOUND = "NOT_FOUND MEDIA_NOT_FOUND"
UPLOAD_NOT_FOUND = "NOT_FOUND UPLOAD_NOT_FOUND"
IN_USE = "FAILED_PRECONDITION MEDIA_IN_USE"
DIRECT_UPLOAD_UNSUPPORTED = "FAILED_PRECONDITION DIRECT_UPLOAD_UNSUPPORTED"

# The fields of a request, or of each message of a stream of them.
Fields = Mapping[str, Any] | Sequence[Mapping[str, Any]]
Request = Callable[[Scenario], Fields]


@dataclass(frozen=True)
class Policy:
    """How a method answers each role of a scenario.

    Attributes:
        method: insta.posts.v1.PostService/GetPost.
        request: What all of them send.
        case: What the request is about, if the method has several policies.
    """

    method: str
    request: Request
    nobody: str = TOKEN_MISSING
    stranger: str = OK
    host: str = OK
    owner: str = OK
    staff: str = OK
    superuser: str = OK
    case: str = ""

    def answers(self) -> dict[str, str]:
        """The answers by role, refusals first: what somebody was refused is there for who may."""
        roles = ("nobody", "stranger", "host", "owner", "staff", "superuser")
        return dict(sorted(((role, getattr(self, role)) for role in roles), key=lambda answer: answer[1] == OK))


def _everybody(method: str, request: Request) -> Policy:
    return Policy(method, request, nobody=OK)


def _services(method: str, request: Request) -> Policy:
    """For services: it makes no difference whose token they send."""
    return Policy(method, request, nobody=OK)


def _users(method: str, request: Request) -> Policy:
    return Policy(method, request)


def _owner(method: str, request: Request, **others: str) -> Policy:
    refused = dict.fromkeys(("stranger", "host", "staff", "superuser"), NOT_OWNER)
    return Policy(method, request, **{**refused, **others})


def _media_owner(method: str, request: Request, case: str, unseen: bool, owner: str = OK) -> Policy:
    """About an image that others see or not."""
    refused = MEDIA_NOT_FOUND if unseen else NOT_OWNER
    others = dict.fromkeys(("stranger", "host", "staff", "superuser"), refused)
    return Policy(method, request, **others, owner=owner, case=case)


def _answered(method: str, request: Request, answer: str) -> Policy:
    """Of what everybody is refused who has a token."""
    return Policy(method, request, **dict.fromkeys(("stranger", "host", "owner", "staff", "superuser"), answer))


def _sessions_owner(method: str, request: Request) -> Policy:
    others = dict.fromkeys(("stranger", "host", "staff", "superuser"), SESSION_NOT_FOUND)
    return Policy(method, request, **others)


def _staff(method: str, request: Request, **others: str) -> Policy:
    refused = dict.fromkeys(("stranger", "host", "owner"), STAFF_ONLY)
    return Policy(method, request, **{**refused, **others})


def _superusers(method: str, request: Request) -> Policy:
    refused = dict.fromkeys(("stranger", "host", "owner", "staff"), SUPERUSER_ONLY)
    return Policy(method, request, **refused)


def _nothing(_: Scenario) -> Mapping[str, Any]:
    return {}


def _new_account(s: Scenario) -> Mapping[str, Any]:
    email = f"{s.free_name}@example.com"
    return {"username": s.free_name, "email": email, "password": PASSWORD, "first_name": "Pat"}


def _login(s: Scenario) -> Mapping[str, Any]:
    return {"login": s.owner.username, "password": PASSWORD}


def _passwords(_: Scenario) -> Mapping[str, Any]:
    return {"current_password": PASSWORD, "new_password": "another battery staple"}


def _refresh_token(s: Scenario) -> Mapping[str, Any]:
    return {"refresh_token": s.owner.refresh_token}


def _this_session(s: Scenario) -> Mapping[str, Any]:
    return {"session_id": s.owner.session_id}


def _this_user(s: Scenario) -> Mapping[str, Any]:
    return {"user_id": s.owner.id}


def _these_users(s: Scenario) -> Mapping[str, Any]:
    return {"user_ids": [s.owner.id]}


def _this_post(s: Scenario) -> Mapping[str, Any]:
    return {"post_id": s.post_id}


def _these_posts(s: Scenario) -> Mapping[str, Any]:
    return {"post_ids": [s.post_id]}


def _a_title(_: Scenario) -> Mapping[str, Any]:
    return {"title": "First light"}


def _a_new_title(s: Scenario) -> Mapping[str, Any]:
    return {"post": {"id": s.post_id, "title": "Changed"}}


def _this_comment(s: Scenario) -> Mapping[str, Any]:
    return {"comment_id": s.comment_id}


def _a_comment(s: Scenario) -> Mapping[str, Any]:
    return {"post_id": s.post_id, "text": "Lovely"}


def _a_new_text(s: Scenario) -> Mapping[str, Any]:
    return {"comment_id": s.comment_id, "text": "Changed"}


def _deactivation(s: Scenario) -> Mapping[str, Any]:
    return {"user_id": s.owner.id, "active": False}


def _promotion(s: Scenario) -> Mapping[str, Any]:
    return {"user_id": s.owner.id, "staff": True}


def _an_upload(_: Scenario) -> Sequence[Mapping[str, Any]]:
    data = small_picture()
    return [{"header": {"content_type": "image/png", "size": len(data)}}, {"chunk": data}]


def _a_file(_: Scenario) -> Mapping[str, Any]:
    return {"content_type": "image/png", "size": 100}


def _this_media(s: Scenario) -> Mapping[str, Any]:
    return {"media_id": s.media_id}


def _this_shown_media(s: Scenario) -> Mapping[str, Any]:
    return {"media_id": s.shown_media_id}


def _media_policies(service: str) -> tuple[Policy, ...]:
    """The same for the public API and for the service behind it."""
    return (
        _users(f"{service}/UploadMedia", _an_upload),
        _answered(f"{service}/StartUpload", _a_file, DIRECT_UPLOAD_UNSUPPORTED),
        _answered(f"{service}/FinishUpload", lambda _: {"upload_id": 1}, UPLOAD_NOT_FOUND),
        _media_owner(f"{service}/GetMedia", _this_media, "that nothing shows", unseen=True),
        Policy(f"{service}/GetMedia", _this_shown_media, case="in a post"),
        _media_owner(f"{service}/DownloadMedia", _this_media, "that nothing shows", unseen=True),
        Policy(f"{service}/DownloadMedia", _this_shown_media, case="in a post"),
        _media_owner(f"{service}/UpdateMedia", _this_media, "that nothing shows", unseen=True),
        _media_owner(f"{service}/UpdateMedia", _this_shown_media, "in a post", unseen=False),
        _media_owner(f"{service}/DeleteMedia", _this_media, "that nothing shows", unseen=True),
        _media_owner(f"{service}/DeleteMedia", _this_shown_media, "in a post", unseen=False, owner=IN_USE),
    )


def _avatar_policies(service: str) -> tuple[Policy, ...]:
    return (
        _media_owner(f"{service}/SetAvatar", _this_media, "that nothing shows", unseen=True),
        _media_owner(f"{service}/SetAvatar", _this_shown_media, "in a post", unseen=False, owner=IN_USE),
        _users(f"{service}/RemoveAvatar", _nothing),
    )


POLICIES = (
    # The public API.
    _everybody("insta.gateway.v1.AccountService/Register", _new_account),
    _everybody("insta.gateway.v1.AccountService/Login", _login),
    _everybody("insta.gateway.v1.AccountService/RefreshSession", _refresh_token),
    _users("insta.gateway.v1.AccountService/Logout", _nothing),
    _users("insta.gateway.v1.AccountService/LogoutEverywhere", _nothing),
    _users("insta.gateway.v1.AccountService/ListSessions", _nothing),
    _sessions_owner("insta.gateway.v1.AccountService/RevokeSession", _this_session),
    _users("insta.gateway.v1.AccountService/GetAccount", _nothing),
    _users("insta.gateway.v1.AccountService/UpdateAccount", lambda _: {"account": {"bio": "Changed"}}),
    _users("insta.gateway.v1.AccountService/DeleteAccount", lambda _: {"password": PASSWORD}),
    _users("insta.gateway.v1.AccountService/ChangePassword", _passwords),
    _users("insta.gateway.v1.ProfileService/GetProfile", _this_user),
    _users("insta.gateway.v1.ProfileService/BatchGetProfiles", _these_users),
    _users("insta.gateway.v1.ProfileService/ListProfilePosts", _this_user),
    _users("insta.gateway.v1.FeedService/ListHomeFeed", _nothing),
    _users("insta.gateway.v1.ProfileService/FollowUser", lambda s: {"user_id": s.bystander.id}),
    _users("insta.gateway.v1.ProfileService/UnfollowUser", lambda s: {"user_id": s.bystander.id}),
    _users("insta.gateway.v1.ProfileService/ListFollowers", _this_user),
    _users("insta.gateway.v1.ProfileService/ListFollowing", _this_user),
    _users("insta.gateway.v1.PostService/CreatePost", _a_title),
    _users("insta.gateway.v1.PostService/GetPost", _this_post),
    _users("insta.gateway.v1.PostService/BatchGetPosts", _these_posts),
    _owner("insta.gateway.v1.PostService/UpdatePost", _a_new_title),
    _owner("insta.gateway.v1.PostService/DeletePost", _this_post, staff=OK, superuser=OK),
    _users("insta.gateway.v1.PostService/LikePost", _this_post),
    _users("insta.gateway.v1.PostService/UnlikePost", _this_post),
    _users("insta.gateway.v1.PostService/ListPostLikes", _this_post),
    _users("insta.gateway.v1.PostService/CreateComment", _a_comment),
    _owner("insta.gateway.v1.PostService/UpdateComment", _a_new_text),
    _owner("insta.gateway.v1.PostService/DeleteComment", _this_comment, host=OK, staff=OK, superuser=OK),
    _users("insta.gateway.v1.PostService/ListComments", _this_post),
    *_media_policies("insta.gateway.v1.MediaService"),
    *_avatar_policies("insta.gateway.v1.AccountService"),
    _staff("insta.gateway.v1.AdminService/ListUsers", _nothing),
    _staff("insta.gateway.v1.AdminService/SetUserActive", _deactivation),
    _staff(
        "insta.gateway.v1.AdminService/SetUserActive",
        lambda s: {"user_id": s.superuser.id, "active": False},
        staff=SUPERUSER_ONLY,
        case="a superuser",
    ),
    _staff("insta.gateway.v1.AdminService/DeleteUser", _this_user),
    _staff(
        "insta.gateway.v1.AdminService/DeleteUser",
        lambda s: {"user_id": s.superuser.id},
        staff=SUPERUSER_ONLY,
        superuser=WRONG_PASSWORD,
        case="a superuser",
    ),
    _superusers("insta.gateway.v1.AdminService/SetUserRoles", _promotion),
    _staff("insta.gateway.v1.AdminService/GetErasure", _this_user),
    _staff("insta.gateway.v1.AdminService/RevokeUserSessions", _this_user),
    _staff(
        "insta.gateway.v1.AdminService/RevokeUserSessions",
        lambda s: {"user_id": s.superuser.id},
        staff=SUPERUSER_ONLY,
        case="a superuser",
    ),
    # Accounts and passwords.
    _everybody("insta.users.v1.AuthService/Login", _login),
    _users("insta.users.v1.AuthService/ChangePassword", _passwords),
    _everybody("insta.users.v1.AuthService/GetKeySet", _nothing),
    _everybody("insta.users.v1.SessionService/RefreshSession", _refresh_token),
    _users("insta.users.v1.SessionService/Logout", _nothing),
    _users("insta.users.v1.SessionService/LogoutEverywhere", _nothing),
    _users("insta.users.v1.SessionService/ListSessions", _nothing),
    _sessions_owner("insta.users.v1.SessionService/RevokeSession", _this_session),
    _staff("insta.users.v1.SessionService/RevokeUserSessions", _this_user),
    _staff(
        "insta.users.v1.SessionService/RevokeUserSessions",
        lambda s: {"user_id": s.superuser.id},
        staff=SUPERUSER_ONLY,
        case="a superuser",
    ),
    _services("insta.users.v1.EventService/ReadEvents", _nothing),
    _services("insta.users.v1.EventService/FindMissingUsers", _these_users),
    _staff("insta.users.v1.UserService/GetErasure", _this_user),
    _everybody("insta.users.v1.UserService/CreateUser", _new_account),
    _users("insta.users.v1.UserService/GetUser", _this_user),
    _users("insta.users.v1.UserService/BatchGetUsers", _these_users),
    _users("insta.users.v1.UserService/LookUpUser", lambda s: {"username": s.owner.username}),
    _staff("insta.users.v1.UserService/ListUsers", _nothing),
    _owner("insta.users.v1.UserService/UpdateUser", lambda s: {"user": {"id": s.owner.id, "bio": "Changed"}}),
    _owner(
        "insta.users.v1.UserService/DeleteUser",
        lambda s: {"user_id": s.owner.id, "password": PASSWORD},
        staff=OK,
        superuser=OK,
    ),
    _owner(
        "insta.users.v1.UserService/DeleteUser",
        lambda s: {"user_id": s.superuser.id, "password": PASSWORD},
        owner=NOT_OWNER,
        staff=SUPERUSER_ONLY,
        superuser=OK,
        case="a superuser",
    ),
    _superusers("insta.users.v1.UserService/SetRoles", _promotion),
    _staff("insta.users.v1.UserService/SetActive", _deactivation),
    _staff(
        "insta.users.v1.UserService/SetActive",
        lambda s: {"user_id": s.superuser.id, "active": False},
        staff=SUPERUSER_ONLY,
        case="a superuser",
    ),
    # Posts.
    _users("insta.posts.v1.PostService/CreatePost", _a_title),
    _users("insta.posts.v1.PostService/GetPost", _this_post),
    _users("insta.posts.v1.PostService/BatchGetPosts", _these_posts),
    _users("insta.posts.v1.PostService/ListPostsByAuthor", lambda s: {"author_id": s.owner.id}),
    _users("insta.posts.v1.PostService/ListPostsByAuthors", _nothing),
    _users("insta.posts.v1.PostService/BatchCountPosts", lambda s: {"author_ids": [s.owner.id]}),
    _owner("insta.posts.v1.PostService/UpdatePost", _a_new_title),
    _owner("insta.posts.v1.PostService/DeletePost", _this_post, staff=OK, superuser=OK),
    _staff("insta.posts.v1.PostService/GetErasure", _this_user),
    *_media_policies("insta.posts.v1.MediaService"),
    *_avatar_policies("insta.posts.v1.MediaService"),
    _users("insta.posts.v1.MediaService/BatchGetAvatars", _these_users),
    _services("insta.posts.v1.EventService/ReadEvents", _nothing),
    _services("insta.posts.v1.EventService/FindMissingPosts", _these_posts),
    # Follows, likes, comments, and their counters.
    _users("insta.social.v1.FollowService/Follow", lambda s: {"followee_id": s.bystander.id}),
    _users("insta.social.v1.FollowService/Unfollow", lambda s: {"followee_id": s.bystander.id}),
    _users("insta.social.v1.FollowService/ListFollowers", _this_user),
    _users("insta.social.v1.FollowService/ListFollowees", _this_user),
    _users("insta.social.v1.FollowService/ListFolloweeIds", _nothing),
    _users("insta.social.v1.LikeService/LikePost", _this_post),
    _users("insta.social.v1.LikeService/UnlikePost", _this_post),
    _users("insta.social.v1.LikeService/ListLikes", _this_post),
    _users("insta.social.v1.CommentService/CreateComment", _a_comment),
    _owner("insta.social.v1.CommentService/UpdateComment", _a_new_text),
    _owner("insta.social.v1.CommentService/DeleteComment", _this_comment, host=OK, staff=OK, superuser=OK),
    _users("insta.social.v1.CommentService/ListComments", _this_post),
    _users("insta.social.v1.StatsService/BatchGetPostStats", _these_posts),
    _users("insta.social.v1.StatsService/BatchGetUserStats", _these_users),
    _staff("insta.social.v1.StatsService/GetErasure", _this_user),
    _services("insta.social.v1.EventService/ReadEvents", _nothing),
)
