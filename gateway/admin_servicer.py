"""AdminService: what staff can do with the accounts of others."""

from __future__ import annotations

from gateway import hydrate, views
from gateway.backends import Backends
from insta.gateway.v1 import admin_pb2, admin_pb2_grpc
from insta.posts.v1 import posts_pb2
from insta.social.v1 import stats_pb2
from insta.users.v1 import sessions_pb2, users_pb2


class AdminServicer(admin_pb2_grpc.AdminServiceServicer):
    def __init__(self, backends: Backends) -> None:
        self._backends = backends
        self._users = backends.users
        self._sessions = backends.sessions
        self._posts = backends.posts
        self._stats = backends.stats
        self._short_profiles = backends.short_profiles

    async def ListUsers(self, request: admin_pb2.ListUsersRequest, context: object) -> admin_pb2.ListUsersResponse:
        page = await self._users.ListUsers(
            users_pb2.ListUsersRequest(
                active=request.active if request.HasField("active") else None,
                staff=request.staff if request.HasField("staff") else None,
                text=request.text,
                page_size=request.page_size,
                page_token=request.page_token,
            )
        )
        return admin_pb2.ListUsersResponse(
            accounts=await hydrate.accounts(self._backends, page.users), next_page_token=page.next_page_token
        )

    async def SetUserActive(
        self, request: admin_pb2.SetUserActiveRequest, context: object
    ) -> admin_pb2.SetUserActiveResponse:
        changed = await self._users.SetActive(
            users_pb2.SetActiveRequest(user_id=request.user_id, active=request.active, request_id=request.request_id)
        )
        return admin_pb2.SetUserActiveResponse(account=await hydrate.account(self._backends, changed.user))

    async def DeleteUser(self, request: admin_pb2.DeleteUserRequest, context: object) -> admin_pb2.DeleteUserResponse:
        try:
            await self._users.DeleteUser(
                users_pb2.DeleteUserRequest(user_id=request.user_id, request_id=request.request_id)
            )
        finally:
            self._short_profiles.drop(request.user_id)
        return admin_pb2.DeleteUserResponse()

    async def SetUserRoles(
        self, request: admin_pb2.SetUserRolesRequest, context: object
    ) -> admin_pb2.SetUserRolesResponse:
        changed = await self._users.SetRoles(
            users_pb2.SetRolesRequest(
                user_id=request.user_id,
                staff=request.staff if request.HasField("staff") else None,
                superuser=request.superuser if request.HasField("superuser") else None,
                request_id=request.request_id,
            )
        )
        return admin_pb2.SetUserRolesResponse(account=await hydrate.account(self._backends, changed.user))

    async def RevokeUserSessions(
        self, request: admin_pb2.RevokeUserSessionsRequest, context: object
    ) -> admin_pb2.RevokeUserSessionsResponse:
        await self._sessions.RevokeUserSessions(
            sessions_pb2.RevokeUserSessionsRequest(user_id=request.user_id, request_id=request.request_id)
        )
        return admin_pb2.RevokeUserSessionsResponse()

    async def GetErasure(self, request: admin_pb2.GetErasureRequest, context: object) -> admin_pb2.GetErasureResponse:
        user_id = request.user_id
        users = await self._users.GetErasure(users_pb2.GetErasureRequest(user_id=user_id))
        posts = await self._posts.GetErasure(posts_pb2.GetErasureRequest(user_id=user_id))
        # After the posts: social must have heard of all that were deleted until nothing was left of them there.
        social = await self._stats.GetErasure(stats_pb2.GetErasureRequest(user_id=user_id))
        return views.erasure({"users": users, "posts": posts, "social": social})
