"""From ids to what people see: one batch call to a service for a whole page, side by side where none needs another.

Who is asked for in one line is known here mostly, and takes a call to users only if not.
"""

from __future__ import annotations

from collections.abc import Sequence

from gateway import views
from gateway.backends import Backends
from insta.gateway.v1 import accounts_pb2, posts_pb2, profiles_pb2, short_profile_pb2
from insta.posts.v1 import posts_pb2 as stored_posts_pb2
from insta.social.v1 import comments_pb2, stats_pb2
from insta.users.v1 import users_pb2


async def posts(backends: Backends, stored: Sequence[stored_posts_pb2.Post]) -> list[posts_pb2.Post]:
    """A page of posts with their authors, counters and the viewer's likes: one call."""
    if not stored:
        return []
    stats_call = backends.stats.BatchGetPostStats(
        stats_pb2.BatchGetPostStatsRequest(post_ids=(post.id for post in stored))
    )
    authors = await backends.short_profiles.of(post.author_id for post in stored)
    stats = {of_post.post_id: of_post for of_post in (await stats_call).stats}
    return [views.post(post, authors, stats) for post in stored]


async def comments(backends: Backends, stored: Sequence[comments_pb2.Comment]) -> list[posts_pb2.Comment]:
    """A page of comments with their authors."""
    authors = await backends.short_profiles.of(comment.author_id for comment in stored)
    return [views.comment(comment, authors) for comment in stored]


async def short_profiles(backends: Backends, user_ids: Sequence[int]) -> list[short_profile_pb2.ShortProfile]:
    """A page of people in one line each."""
    people = await backends.short_profiles.of(user_ids)
    return [views.short_profile(user_id, people) for user_id in user_ids]


async def profiles(backends: Backends, users: Sequence[users_pb2.User]) -> list[profiles_pb2.Profile]:
    """People with their counters, their avatars and how they stand to the viewer: three calls."""
    if not users:
        return []
    user_ids = [user.id for user in users]
    counts_call = backends.posts.BatchCountPosts(stored_posts_pb2.BatchCountPostsRequest(author_ids=user_ids))
    stats_call = backends.stats.BatchGetUserStats(stats_pb2.BatchGetUserStatsRequest(user_ids=user_ids))
    avatars = await backends.avatars.of(user_ids)
    post_counts = {count.author_id: count.post_count for count in (await counts_call).counts}
    stats = {of_user.user_id: of_user for of_user in (await stats_call).stats}
    return [views.profile(user, post_counts, stats, avatars) for user in users]


async def account(backends: Backends, user: users_pb2.User) -> accounts_pb2.Account:
    """An account with its avatar."""
    (seen,) = await accounts(backends, [user])
    return seen


async def accounts(backends: Backends, users: Sequence[users_pb2.User]) -> list[accounts_pb2.Account]:
    """Accounts with their avatars."""
    avatars = await backends.avatars.of(user.id for user in users)
    return [views.account(user, avatars) for user in users]
