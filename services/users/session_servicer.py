"""SessionService: how sessions go on, and how they end."""

from __future__ import annotations

from chassis import audit, call, clock
from chassis.call import caller
from chassis.store import Store
from insta.users.v1 import sessions_pb2, sessions_pb2_grpc
from services.users import accounts, keys, logins, sessions, tokens
from services.users.messages import session_message


class SessionServicer(sessions_pb2_grpc.SessionServiceServicer):
    def __init__(self, store: Store) -> None:
        self._store = store

    async def RefreshSession(
        self, request: sessions_pb2.RefreshSessionRequest, context: object
    ) -> sessions_pb2.RefreshSessionResponse:
        refresh_token = sessions.refresh_token(request.refresh_token)
        login = await self._store.write(logins.refresh, refresh_token, call.origin().address)
        if isinstance(login, logins.Reuse):
            audit.record("refresh token reused", user_id=login.session.user_id, session_id=login.session.id)
            raise sessions.token_invalid()
        token = tokens.issue(await self._store.read(keys.signer), login.account, login.session)
        return sessions_pb2.RefreshSessionResponse(
            access_token=token.text,
            expire_time=clock.timestamp(token.expire_time),
            refresh_token=login.refresh_token.text,
            session_expire_time=clock.timestamp(login.session.expire_time),
        )

    async def Logout(self, request: sessions_pb2.LogoutRequest, context: object) -> sessions_pb2.LogoutResponse:
        who = caller()
        await self._store.write(sessions.end, who.user_id, who.session_id)
        audit.record("logout", user_id=who.user_id, session_id=who.session_id)
        return sessions_pb2.LogoutResponse()

    async def LogoutEverywhere(
        self, request: sessions_pb2.LogoutEverywhereRequest, context: object
    ) -> sessions_pb2.LogoutEverywhereResponse:
        await self._store.write(sessions.end_all, caller().user_id)
        audit.record("logout everywhere", user_id=caller().user_id)
        return sessions_pb2.LogoutEverywhereResponse()

    async def ListSessions(
        self, request: sessions_pb2.ListSessionsRequest, context: object
    ) -> sessions_pb2.ListSessionsResponse:
        who = caller()
        found = await self._store.read(sessions.of_user, who.user_id)
        return sessions_pb2.ListSessionsResponse(
            sessions=(session_message(session, session.id == who.session_id) for session in found)
        )

    async def RevokeSession(
        self, request: sessions_pb2.RevokeSessionRequest, context: object
    ) -> sessions_pb2.RevokeSessionResponse:
        if not await self._store.write(sessions.end, caller().user_id, request.session_id):
            raise sessions.not_found(request.session_id)
        audit.record("session revoked", user_id=caller().user_id, session_id=request.session_id)
        return sessions_pb2.RevokeSessionResponse()

    async def RevokeUserSessions(
        self, request: sessions_pb2.RevokeUserSessionsRequest, context: object
    ) -> sessions_pb2.RevokeUserSessionsResponse:
        await self._store.write(accounts.end_sessions, caller(), request.user_id)
        audit.record("sessions revoked", user_id=request.user_id)
        return sessions_pb2.RevokeUserSessionsResponse()
