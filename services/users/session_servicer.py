"""SessionService: how sessions go on, and how they end."""

from __future__ import annotations

from chassis import call, clock
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
            raise sessions.token_invalid()
        token = tokens.issue(await self._store.read(keys.signer), login.account, login.session)
        return sessions_pb2.RefreshSessionResponse(
            access_token=token.text,
            expire_time=clock.timestamp(token.expire_time),
            refresh_token=login.refresh_token.text,
            session_expire_time=clock.timestamp(login.session.expire_time),
        )

    async def Logout(self, request: sessions_pb2.LogoutRequest, context: object) -> sessions_pb2.LogoutResponse:

        def log_out(db: Database) -> sessions_pb2.LogoutResponse:
            sessions.log_out(db, caller())
            return sessions_pb2.LogoutResponse()

        return await self._replies.write(request, sessions_pb2.LogoutResponse, log_out)

    async def LogoutEverywhere(
        self, request: sessions_pb2.LogoutEverywhereRequest, context: object
    ) -> sessions_pb2.LogoutEverywhereResponse:

        def log_out(db: Database) -> sessions_pb2.LogoutEverywhereResponse:
            sessions.log_out_everywhere(db, caller())
            return sessions_pb2.LogoutEverywhereResponse()

        return await self._replies.write(request, sessions_pb2.LogoutEverywhereResponse, log_out)

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

        def revoke(db: Database) -> sessions_pb2.RevokeSessionResponse:
            sessions.revoke(db, caller(), request.session_id)
            return sessions_pb2.RevokeSessionResponse()

        return await self._replies.write(request, sessions_pb2.RevokeSessionResponse, revoke)

    async def RevokeUserSessions(
        self, request: sessions_pb2.RevokeUserSessionsRequest, context: object
    ) -> sessions_pb2.RevokeUserSessionsResponse:

        def revoke(db: Database) -> sessions_pb2.RevokeUserSessionsResponse:
            accounts.end_sessions(db, caller(), request.user_id)
            return sessions_pb2.RevokeUserSessionsResponse()

        return await self._replies.write(request, sessions_pb2.RevokeUserSessionsResponse, revoke)
