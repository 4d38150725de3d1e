"""UserService: accounts over gRPC."""

from __future__ import annotations

from chassis import audit, errors
from chassis.call import caller
from chassis.errors import Reason
from chassis.masks import masked
from chassis.paging import Pager
from chassis.store import Store
from insta.users.v1 import users_pb2, users_pb2_grpc
from services.users import accounts, throttle
from services.users.messages import private_user, public_user
from services.users.password_check import PasswordCheck
from services.users.passwords import Passwords


class UserServicer(users_pb2_grpc.UserServiceServicer):
    def __init__(self, store: Store, pager: Pager, passwords: Passwords, check: PasswordCheck) -> None:
        self._store = store
        self._pager = pager
        self._passwords = passwords
        self._check = check

    async def CreateUser(self, request: users_pb2.CreateUserRequest, context: object) -> users_pb2.CreateUserResponse:
        account = await self._store.write(
            accounts.create,
            username=request.username,
            email=request.email,
            password_hash=await self._passwords.hash(request.password),
            first_name=request.first_name,
            last_name=request.last_name,
            bio=request.bio,
        )
        audit.record("account created", user_id=account.id)
        return users_pb2.CreateUserResponse(user=private_user(account))

    async def GetUser(self, request: users_pb2.GetUserRequest, context: object) -> users_pb2.GetUserResponse:
        account, private = await self._store.read(accounts.seen, caller(), request.user_id)
        return users_pb2.GetUserResponse(user=private_user(account) if private else public_user(account))

    async def BatchGetUsers(
        self, request: users_pb2.BatchGetUsersRequest, context: object
    ) -> users_pb2.BatchGetUsersResponse:
        found = await self._store.read(accounts.batch, list(request.user_ids))
        return users_pb2.BatchGetUsersResponse(users=map(public_user, found))

    async def LookUpUser(self, request: users_pb2.LookUpUserRequest, context: object) -> users_pb2.LookUpUserResponse:
        account = await self._store.read(accounts.look_up, request.username)
        return users_pb2.LookUpUserResponse(user=public_user(account))

    async def ListUsers(self, request: users_pb2.ListUsersRequest, context: object) -> users_pb2.ListUsersResponse:
        found = await self._store.read_long(
            accounts.search,
            caller(),
            active=request.active if request.HasField("active") else None,
            staff=request.staff if request.HasField("staff") else None,
            text=request.text,
            below=self._pager.start(request),
            limit=self._pager.size(request) + 1,
        )
        page, token = self._pager.page(request, found, lambda account: account.id)
        return users_pb2.ListUsersResponse(users=map(private_user, page), next_page_token=token)

    async def UpdateUser(self, request: users_pb2.UpdateUserRequest, context: object) -> users_pb2.UpdateUserResponse:
        user = request.user
        values = {
            "username": user.username,
            "first_name": user.first_name,
            "last_name": user.last_name,
            "bio": user.bio,
            "private_details.email": user.private_details.email,
        }
        changes = masked(values, request.update_mask)
        if "private_details.email" in changes:
            changes["email"] = changes.pop("private_details.email")
        account = await self._store.write(accounts.update, caller(), user.id, changes)
        audit.record("account changed", user_id=account.id, fields=sorted(changes))
        return users_pb2.UpdateUserResponse(user=private_user(account))

    async def DeleteUser(self, request: users_pb2.DeleteUserRequest, context: object) -> users_pb2.DeleteUserResponse:
        if request.user_id == caller().user_id:
            credentials = await self._store.read(accounts.credentials_of, caller())
            session = throttle.session(caller().session_id)
            if not await self._check.matches(request.password, credentials, session):
                audit.record("account deletion failed", user_id=request.user_id)
                raise errors.PermissionDenied(Reason.REASON_WRONG_PASSWORD, "password: is not that of the account")
        await self._store.write(accounts.delete, caller(), request.user_id)
        audit.record("account deleted", user_id=request.user_id)
        return users_pb2.DeleteUserResponse()

    async def SetRoles(self, request: users_pb2.SetRolesRequest, context: object) -> users_pb2.SetRolesResponse:
        account = await self._store.write(
            accounts.set_roles,
            caller(),
            request.user_id,
            staff=request.staff if request.HasField("staff") else None,
            superuser=request.superuser if request.HasField("superuser") else None,
        )
        roles = {"staff": bool(account.staff), "superuser": bool(account.superuser)}
        audit.record("roles set", user_id=account.id, **roles)
        return users_pb2.SetRolesResponse(user=private_user(account))

    async def SetActive(self, request: users_pb2.SetActiveRequest, context: object) -> users_pb2.SetActiveResponse:
        account = await self._store.write(accounts.set_active, caller(), request.user_id, request.active)
        audit.record("account activated" if request.active else "account deactivated", user_id=account.id)
        return users_pb2.SetActiveResponse(user=private_user(account))
