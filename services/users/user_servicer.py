"""UserService: accounts over gRPC."""

from __future__ import annotations

from chassis import replay
from chassis.call import caller
from chassis.masks import masked
from chassis.paging import Pager
from chassis.replay import Replies
from chassis.store import Database, Store, after_commit
from insta.users.v1 import users_pb2, users_pb2_grpc
from services.users import accounts, erasure, throttle
from services.users.messages import private_user, public_user
from services.users.password_check import PasswordCheck
from services.users.passwords import Passwords


class UserServicer(users_pb2_grpc.UserServiceServicer):
    def __init__(
        self, store: Store, replies: Replies, pager: Pager, passwords: Passwords, check: PasswordCheck
    ) -> None:
        self._store = store
        self._replies = replies
        self._pager = pager
        self._passwords = passwords
        self._check = check

    async def CreateUser(self, request: users_pb2.CreateUserRequest, context: object) -> users_pb2.CreateUserResponse:
        before = await self._replies.find(request, users_pb2.CreateUserResponse)
        if before is not None:
            return await self._for_its_owner(before, request.password)
        password_hash = await self._passwords.hash(request.password)
        made = False

        def keep() -> None:
            nonlocal made
            made = True

        def create(db: Database) -> users_pb2.CreateUserResponse:
            after_commit(keep)
            account = accounts.create(
                db,
                username=request.username,
                email=request.email,
                password_hash=password_hash,
                first_name=request.first_name,
                last_name=request.last_name,
                bio=request.bio,
            )
            return users_pb2.CreateUserResponse(user=private_user(account))

        response = await self._replies.write(request, users_pb2.CreateUserResponse, create, _whom)
        return response if made else await self._for_its_owner(response, request.password)

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

        def update(db: Database) -> users_pb2.UpdateUserResponse:
            return users_pb2.UpdateUserResponse(user=private_user(accounts.update(db, caller(), user.id, changes)))

        return await self._replies.write(request, users_pb2.UpdateUserResponse, update)

    async def DeleteUser(self, request: users_pb2.DeleteUserRequest, context: object) -> users_pb2.DeleteUserResponse:
        if request.user_id == caller().user_id:
            credentials = await self._store.read(accounts.credentials_of, caller())
            session = throttle.session(caller().session_id)
            if not await self._check.matches("account deletion", request.password, credentials, session):
                raise accounts.wrong_password("password")

        def delete(db: Database) -> users_pb2.DeleteUserResponse:
            accounts.delete(db, caller(), request.user_id)
            return users_pb2.DeleteUserResponse()

        return await self._replies.write(request, users_pb2.DeleteUserResponse, delete)

    async def SetRoles(self, request: users_pb2.SetRolesRequest, context: object) -> users_pb2.SetRolesResponse:
        staff = request.staff if request.HasField("staff") else None
        superuser = request.superuser if request.HasField("superuser") else None

        def set_roles(db: Database) -> users_pb2.SetRolesResponse:
            account = accounts.set_roles(db, caller(), request.user_id, staff=staff, superuser=superuser)
            return users_pb2.SetRolesResponse(user=private_user(account))

        return await self._replies.write(request, users_pb2.SetRolesResponse, set_roles, _whom)

    async def SetActive(self, request: users_pb2.SetActiveRequest, context: object) -> users_pb2.SetActiveResponse:

        def set_active(db: Database) -> users_pb2.SetActiveResponse:
            account = accounts.set_active(db, caller(), request.user_id, request.active)
            return users_pb2.SetActiveResponse(user=private_user(account))

        return await self._replies.write(request, users_pb2.SetActiveResponse, set_active, _whom)

    async def GetErasure(self, request: users_pb2.GetErasureRequest, context: object) -> users_pb2.GetErasureResponse:
        erased, left = await self._store.read(erasure.left_of, request.user_id)
        return users_pb2.GetErasureResponse(erased=erased, left=left)

    async def _for_its_owner(
        self, response: users_pb2.CreateUserResponse, password: str
    ) -> users_pb2.CreateUserResponse:
        """The answer to a registration that comes again. It has no token: the password tells who sends it."""
        user_id = response.user.id
        credentials = await self._store.read(accounts.credentials_by_id, user_id)
        owner = throttle.login(response.user.username)
        if not await self._check.matches("registration", password, credentials, owner):
            raise replay.id_reused()
        return response


def _whom(response: users_pb2.CreateUserResponse | users_pb2.SetRolesResponse | users_pb2.SetActiveResponse) -> int:
    """The user whose private details an answer holds."""
    return response.user.id
