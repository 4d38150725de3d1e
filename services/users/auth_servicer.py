"""AuthService: passwords for tokens."""

from __future__ import annotations

from chassis import call, clock, identity
from chassis.call import caller
from chassis.replay import Replies
from chassis.store import Database, Store
from insta.users.v1 import auth_pb2, auth_pb2_grpc
from services.users import accounts, keys, logins, throttle, tokens
from services.users.messages import private_user
from services.users.password_check import PasswordCheck
from services.users.passwords import Passwords


class AuthServicer(auth_pb2_grpc.AuthServiceServicer):
    def __init__(self, store: Store, replies: Replies, passwords: Passwords, check: PasswordCheck) -> None:
        self._store = store
        self._replies = replies
        self._passwords = passwords
        self._check = check

    async def Login(self, request: auth_pb2.LoginRequest, context: object) -> auth_pb2.LoginResponse:
        origin = call.origin()
        credentials = await self._store.read(accounts.credentials_for, request.login)
        correct = await self._check.matches(
            "login", request.password, credentials, throttle.login(request.login), throttle.address(origin.address)
        )
        if not correct or credentials is None:
            raise logins.wrong_credentials()
        stronger = await self._passwords.strengthened(request.password, credentials.password_hash)
        client_name = request.client_name or origin.user_agent
        login = await self._store.write(logins.begin, credentials, stronger, client_name, origin.address)
        if isinstance(login, logins.Deactivated):
            raise identity.account_inactive()
        token = tokens.issue(await self._store.read(keys.signer), login.account, login.session)
        return auth_pb2.LoginResponse(
            access_token=token.text,
            expire_time=clock.timestamp(token.expire_time),
            user=private_user(login.account),
            refresh_token=login.refresh_token.text,
            session_expire_time=clock.timestamp(login.session.expire_time),
        )

    async def ChangePassword(
        self, request: auth_pb2.ChangePasswordRequest, context: object
    ) -> auth_pb2.ChangePasswordResponse:
        credentials = await self._store.read(accounts.credentials_of, caller())
        session = throttle.session(caller().session_id)
        if not await self._check.matches("password change", request.current_password, credentials, session):
            raise accounts.wrong_password("current_password")
        password_hash = await self._passwords.hash(request.new_password, field="new_password")

        def change(db: Database) -> auth_pb2.ChangePasswordResponse:
            accounts.set_password(db, caller(), credentials, password_hash)
            return auth_pb2.ChangePasswordResponse()

        return await self._replies.write(request, auth_pb2.ChangePasswordResponse, change)

    async def GetKeySet(self, request: auth_pb2.GetKeySetRequest, context: object) -> auth_pb2.GetKeySetResponse:
        published = await self._store.read(keys.published)
        return auth_pb2.GetKeySetResponse(
            keys=(auth_pb2.PublicKey(kid=key.kid, x=key.public_bytes) for key in published)
        )
