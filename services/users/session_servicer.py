"""SessionService: how sessions go on, and how they end."""

from __future__ import annotations

from chassis import audit, call, clock
from chassis.call import caller
from chassis.replay import Replies
from chassis.store import Database, Store
from insta.users.v1 import sessions_pb2, sessions_pb2_grpc
from services.users import accounts, keys, logins, sessions, tokens
from services.users.messages import session_message


class SessionServicer(sessions_pb2_grpc.SessionServiceServicer):
    def __init__(self, store: Store, replies: Replies) -> None:
        self._store = store
        self._replies = replies

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

        def log_out(db: Database) -> sessions_pb2.LogoutResponse:
            sessions.end(db, who.user_id, who.session_id)
            return sessions_pb2.LogoutResponse()

        response = await self._replies.write(request, sessions_pb2.LogoutResponse, log_out)
        audit.record("logout", user_id=who.user_id, session_id=who.session_id)
        return response

    async def LogoutEverywhere(
        self, request: sessions_pb2.LogoutEverywhereRequest, context: object
    ) -> sessions_pb2.LogoutEverywhereResponse:
        user_id = caller().user_id

        def log_out(db: Database) -> sessions_pb2.LogoutEverywhereResponse:
            sessions.end_all(db, user_id)
            return sessions_pb2.LogoutEverywhereResponse()

        response = await self._replies.write(request, sessions_pb2.LogoutEverywhereResponse, log_out)
        audit.record("logout everywhere", user_id=user_id)
        return response

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
        user_id = caller().user_id

        def revoke(db: Database) -> sessions_pb2.RevokeSessionResponse:
            if not sessions.end(db, user_id, request.session_id):
                raise sessions.not_found(request.session_id)
            return sessions_pb2.RevokeSessionResponse()

        response = await self._replies.write(request, sessions_pb2.RevokeSessionResponse, revoke)
        audit.record("session revoked", user_id=user_id, session_id=request.session_id)
        return response

    async def RevokeUserSessions(
        self, request: sessions_pb2.RevokeUserSessionsRequest, context: object
    ) -> sessions_pb2.RevokeUserSessionsResponse:
        actor = caller()

        def revoke(db: Database) -> sessions_pb2.RevokeUserSessionsResponse:
            accounts.end_sessions(db, actor, request.user_id)
            return sessions_pb2.RevokeUserSessionsResponse()

        response = await self._replies.write(request, sessions_pb2.RevokeUserSessionsResponse, revoke)
        audit.record("sessions revoked", user_id=request.user_id)
        return response
