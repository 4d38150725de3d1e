"""ProfileService: people as others see them, and who follows whom."""

from __future__ import annotations

from gateway import hydrate
from gateway.backends import Backends
from insta.gateway.v1 import profiles_pb2, profiles_pb2_grpc
from insta.posts.v1 import posts_pb2
from insta.social.v1 import follows_pb2
from insta.users.v1 import users_pb2


class ProfileServicer(profiles_pb2_grpc.ProfileServiceServicer):
    def __init__(self, backends: Backends) -> None:
        self._backends = backends

    async def GetProfile(
        self, request: profiles_pb2.GetProfileRequest, context: object
    ) -> profiles_pb2.GetProfileResponse:
        users = self._backends.users
        if request.WhichOneof("person") == "user_id":
            user = (await users.GetUser(users_pb2.GetUserRequest(user_id=request.user_id))).user
        else:
            user = (await users.LookUpUser(users_pb2.LookUpUserRequest(username=request.username))).user
        (profile,) = await hydrate.profiles(self._backends, [user])
        return profiles_pb2.GetProfileResponse(profile=profile)

    async def BatchGetProfiles(
        self, request: profiles_pb2.BatchGetProfilesRequest, context: object
    ) -> profiles_pb2.BatchGetProfilesResponse:
        user_ids = list(dict.fromkeys(request.user_ids))
        found = await self._backends.users.BatchGetUsers(users_pb2.BatchGetUsersRequest(user_ids=user_ids))
        users = {user.id: user for user in found.users}
        in_order = [users[user_id] for user_id in user_ids if user_id in users]
        return profiles_pb2.BatchGetProfilesResponse(profiles=await hydrate.profiles(self._backends, in_order))

    async def ListProfilePosts(
        self, request: profiles_pb2.ListProfilePostsRequest, context: object
    ) -> profiles_pb2.ListProfilePostsResponse:
        posts_call = self._backends.posts.ListPostsByAuthor(
            posts_pb2.ListPostsByAuthorRequest(
                author_id=request.user_id, page_size=request.page_size, page_token=request.page_token
            )
        )
        await self._backends.users.GetUser(users_pb2.GetUserRequest(user_id=request.user_id))
        page = await posts_call
        return profiles_pb2.ListProfilePostsResponse(
            posts=await hydrate.posts(self._backends, page.posts), next_page_token=page.next_page_token
        )

    async def FollowUser(
        self, request: profiles_pb2.FollowUserRequest, context: object
    ) -> profiles_pb2.FollowUserResponse:
        follow = await self._backends.follows.Follow(
            follows_pb2.FollowRequest(followee_id=request.user_id, request_id=request.request_id)
        )
        return profiles_pb2.FollowUserResponse(follower_count=follow.follower_count)

    async def UnfollowUser(
        self, request: profiles_pb2.UnfollowUserRequest, context: object
    ) -> profiles_pb2.UnfollowUserResponse:
        unfollow = await self._backends.follows.Unfollow(
            follows_pb2.UnfollowRequest(followee_id=request.user_id, request_id=request.request_id)
        )
        return profiles_pb2.UnfollowUserResponse(follower_count=unfollow.follower_count)

    async def ListFollowers(
        self, request: profiles_pb2.ListFollowersRequest, context: object
    ) -> profiles_pb2.ListFollowersResponse:
        page = await self._backends.follows.ListFollowers(
            follows_pb2.ListFollowersRequest(
                user_id=request.user_id, page_size=request.page_size, page_token=request.page_token
            )
        )
        return profiles_pb2.ListFollowersResponse(
            followers=await hydrate.short_profiles(self._backends, page.follower_ids),
            next_page_token=page.next_page_token,
        )

    async def ListFollowing(
        self, request: profiles_pb2.ListFollowingRequest, context: object
    ) -> profiles_pb2.ListFollowingResponse:
        page = await self._backends.follows.ListFollowees(
            follows_pb2.ListFolloweesRequest(
                user_id=request.user_id, page_size=request.page_size, page_token=request.page_token
            )
        )
        return profiles_pb2.ListFollowingResponse(
            following=await hydrate.short_profiles(self._backends, page.followee_ids),
            next_page_token=page.next_page_token,
        )
