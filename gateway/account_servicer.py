"""AccountService: joining, logging in and out, and one's own account."""

from __future__ import annotations

from chassis.call import caller
from gateway import hydrate, views
from gateway.backends import Backends
from insta.gateway.v1 import accounts_pb2, accounts_pb2_grpc
from insta.posts.v1 import media_pb2
from insta.users.v1 import auth_pb2, sessions_pb2, users_pb2

# What is called otherwise in the contract of the users service.
_STORED_PATHS = {"email": "private_details.email"}


class AccountServicer(accounts_pb2_grpc.AccountServiceServicer):
    def __init__(self, backends: Backends) -> None:
        self._backends = backends
        self._users = backends.users
        self._media = backends.media
        self._auth = backends.auth
        self._sessions = backends.sessions
        self._short_profiles = backends.short_profiles

    async def Register(self, request: accounts_pb2.RegisterRequest, context: object) -> accounts_pb2.RegisterResponse:
        created = await self._users.CreateUser(
            users_pb2.CreateUserRequest(
                username=request.username,
                email=request.email,
                password=request.password,
                first_name=request.first_name,
                last_name=request.last_name,
                bio=request.bio,
                request_id=request.request_id,
            )
        )
        return accounts_pb2.RegisterResponse(account=views.account(created.user, avatars={}))

    async def Login(self, request: accounts_pb2.LoginRequest, context: object) -> accounts_pb2.LoginResponse:
        login = await self._auth.Login(
            auth_pb2.LoginRequest(login=request.login, password=request.password, client_name=request.client_name)
        )
        return accounts_pb2.LoginResponse(
            access_token=login.access_token,
            expire_time=login.expire_time,
            # Only with a token the posts service could be asked for one.
            account=views.account(login.user, avatars={}),
            refresh_token=login.refresh_token,
            session_expire_time=login.session_expire_time,
        )

    async def RefreshSession(
        self, request: accounts_pb2.RefreshSessionRequest, context: object
    ) -> accounts_pb2.RefreshSessionResponse:
        refreshed = await self._sessions.RefreshSession(
            sessions_pb2.RefreshSessionRequest(refresh_token=request.refresh_token)
        )
        return accounts_pb2.RefreshSessionResponse(
            access_token=refreshed.access_token,
            expire_time=refreshed.expire_time,
            refresh_token=refreshed.refresh_token,
            session_expire_time=refreshed.session_expire_time,
        )

    async def Logout(self, request: accounts_pb2.LogoutRequest, context: object) -> accounts_pb2.LogoutResponse:
        await self._sessions.Logout(sessions_pb2.LogoutRequest(request_id=request.request_id))
        return accounts_pb2.LogoutResponse()

    async def LogoutEverywhere(
        self, request: accounts_pb2.LogoutEverywhereRequest, context: object
    ) -> accounts_pb2.LogoutEverywhereResponse:
        await self._sessions.LogoutEverywhere(sessions_pb2.LogoutEverywhereRequest(request_id=request.request_id))
        return accounts_pb2.LogoutEverywhereResponse()

    async def ListSessions(
        self, request: accounts_pb2.ListSessionsRequest, context: object
    ) -> accounts_pb2.ListSessionsResponse:
        found = await self._sessions.ListSessions(sessions_pb2.ListSessionsRequest())
        return accounts_pb2.ListSessionsResponse(sessions=map(views.session, found.sessions))

    async def RevokeSession(
        self, request: accounts_pb2.RevokeSessionRequest, context: object
    ) -> accounts_pb2.RevokeSessionResponse:
        await self._sessions.RevokeSession(
            sessions_pb2.RevokeSessionRequest(session_id=request.session_id, request_id=request.request_id)
        )
        return accounts_pb2.RevokeSessionResponse()

    async def GetAccount(
        self, request: accounts_pb2.GetAccountRequest, context: object
    ) -> accounts_pb2.GetAccountResponse:
        found = await self._users.GetUser(users_pb2.GetUserRequest(user_id=caller().user_id))
        return accounts_pb2.GetAccountResponse(account=await hydrate.account(self._backends, found.user))

    async def UpdateAccount(
        self, request: accounts_pb2.UpdateAccountRequest, context: object
    ) -> accounts_pb2.UpdateAccountResponse:
        wanted = request.account
        update = users_pb2.UpdateUserRequest(
            user=users_pb2.User(
                id=caller().user_id,
                username=wanted.username,
                first_name=wanted.first_name,
                last_name=wanted.last_name,
                bio=wanted.bio,
                private_details=users_pb2.PrivateDetails(email=wanted.email),
            ),
            request_id=request.request_id,
        )
        paths = (_STORED_PATHS.get(path, path) for path in request.update_mask.paths)
        update.update_mask.paths.extend(paths)
        try:
            updated = await self._users.UpdateUser(update)
        finally:
            self._short_profiles.drop(caller().user_id)
        return accounts_pb2.UpdateAccountResponse(account=await hydrate.account(self._backends, updated.user))

    async def SetAvatar(
        self, request: accounts_pb2.SetAvatarRequest, context: object
    ) -> accounts_pb2.SetAvatarResponse:
        try:
            changed = await self._media.SetAvatar(
                media_pb2.SetAvatarRequest(media_id=request.media_id, request_id=request.request_id)
            )
        finally:
            self._short_profiles.drop(caller().user_id)
        return accounts_pb2.SetAvatarResponse(avatar=views.media(changed.media))

    async def RemoveAvatar(
        self, request: accounts_pb2.RemoveAvatarRequest, context: object
    ) -> accounts_pb2.RemoveAvatarResponse:
        try:
            await self._media.RemoveAvatar(media_pb2.RemoveAvatarRequest(request_id=request.request_id))
        finally:
            self._short_profiles.drop(caller().user_id)
        return accounts_pb2.RemoveAvatarResponse()

    async def DeleteAccount(
        self, request: accounts_pb2.DeleteAccountRequest, context: object
    ) -> accounts_pb2.DeleteAccountResponse:
        delete = users_pb2.DeleteUserRequest(
            user_id=caller().user_id, password=request.password, request_id=request.request_id
        )
        try:
            await self._users.DeleteUser(delete)
        finally:
            self._short_profiles.drop(caller().user_id)
        return accounts_pb2.DeleteAccountResponse()

    async def ChangePassword(
        self, request: accounts_pb2.ChangePasswordRequest, context: object
    ) -> accounts_pb2.ChangePasswordResponse:
        await self._auth.ChangePassword(
            auth_pb2.ChangePasswordRequest(
                current_password=request.current_password,
                new_password=request.new_password,
                request_id=request.request_id,
            )
        )
        return accounts_pb2.ChangePasswordResponse()
