"""AuthService: passwords for access tokens."""

from __future__ import annotations

from chassis import clock, errors, identity
from chassis.call import caller
from chassis.errors import Reason
from chassis.store import Store
from insta.users.v1 import auth_pb2, auth_pb2_grpc
from services.users import accounts, keys, tokens
from services.users.messages import private_user
from services.users.passwords import Passwords


class AuthServicer(auth_pb2_grpc.AuthServiceServicer):
    def __init__(self, store: Store, passwords: Passwords) -> None:
        self._store = store
        self._passwords = passwords

    async def Login(self, request: auth_pb2.LoginRequest, context: object) -> auth_pb2.LoginResponse:
        credentials = await self._store.read(accounts.credentials_for, request.login)
        stored = None if credentials is None else credentials.password_hash
        if not await self._passwords.check(request.password, stored) or credentials is None:
            raise _wrong_credentials()
        # It may have been deleted while its password was checked.
        account = next(iter(await self._store.read(accounts.batch, [credentials.user_id])), None)
        if account is None:
            raise _wrong_credentials()
        if not account.active:
            raise identity.account_inactive()
        stronger = await self._passwords.strengthened(request.password, credentials.password_hash)
        if stronger is not None:
            await self._store.write(accounts.strengthen_password, credentials, stronger)
        signer = await self._store.read(keys.signer)
        token = tokens.issue(signer, account)
        return auth_pb2.LoginResponse(
            access_token=token.text, expire_time=clock.timestamp(token.expire_time), user=private_user(account)
        )

    async def ChangePassword(
        self, request: auth_pb2.ChangePasswordRequest, context: object
    ) -> auth_pb2.ChangePasswordResponse:
        credentials = await self._store.read(accounts.credentials_of, caller())
        correct = await self._passwords.check(request.current_password, credentials.password_hash)
        if not correct or not await self._store.write(
            accounts.set_password, caller(), credentials, await self._passwords.hash(request.new_password)
        ):
            text = "current_password: is not the password of the account"
            raise errors.PermissionDenied(Reason.REASON_WRONG_PASSWORD, text)
        return auth_pb2.ChangePasswordResponse()

    async def GetKeySet(self, request: auth_pb2.GetKeySetRequest, context: object) -> auth_pb2.GetKeySetResponse:
        published = await self._store.read(keys.published)
        return auth_pb2.GetKeySetResponse(
            keys=(auth_pb2.PublicKey(kid=key.kid, x=key.public_bytes) for key in published)
        )


def _wrong_credentials() -> errors.Unauthenticated:
    text = "login, password: no account has both; mind that passwords know capitals"
    return errors.Unauthenticated(Reason.REASON_WRONG_CREDENTIALS, text)
