"""AuthService: passwords for tokens."""

from __future__ import annotations

from chassis import audit, call, clock, errors
from chassis.call import caller
from chassis.errors import Reason
from chassis.store import Store
from insta.users.v1 import auth_pb2, auth_pb2_grpc
from services.users import accounts, keys, logins, throttle, tokens
from services.users.messages import private_user
from services.users.password_check import PasswordCheck
from services.users.passwords import Passwords


class AuthServicer(auth_pb2_grpc.AuthServiceServicer):
    def __init__(self, store: Store, passwords: Passwords, check: PasswordCheck) -> None:
        self._store = store
        self._passwords = passwords
        self._check = check

    async def Login(self, request: auth_pb2.LoginRequest, context: object) -> auth_pb2.LoginResponse:
        origin = call.origin()
        credentials = await self._store.read(accounts.credentials_for, request.login)
        owner = throttle.unknown(request.login) if credentials is None else throttle.account(credentials.user_id)
        correct = await self._check.matches(request.password, credentials, owner, throttle.address(origin.address))
        if not correct or credentials is None:
            audit.record("login failed", user_id=credentials and credentials.user_id)
            raise logins.wrong_credentials()
        stronger = await self._passwords.strengthened(request.password, credentials.password_hash)
        client_name = request.client_name or origin.user_agent
        login = await self._store.write(logins.begin, credentials, stronger, client_name, origin.address)
        audit.record("login", user_id=login.account.id, session_id=login.session.id)
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
        correct = await self._check.matches(request.current_password, credentials, session)
        if not correct or not await self._store.write(
            accounts.set_password, caller(), credentials, await self._passwords.hash(request.new_password)
        ):
            audit.record("password change failed", user_id=credentials.user_id)
            text = "current_password: is not the password of the account"
            raise errors.PermissionDenied(Reason.REASON_WRONG_PASSWORD, text)
        audit.record("password changed", user_id=credentials.user_id)
        return auth_pb2.ChangePasswordResponse()

    async def GetKeySet(self, request: auth_pb2.GetKeySetRequest, context: object) -> auth_pb2.GetKeySetResponse:
        published = await self._store.read(keys.published)
        return auth_pb2.GetKeySetResponse(
            keys=(auth_pb2.PublicKey(kid=key.kid, x=key.public_bytes) for key in published)
        )
