"""Profiles and follows through the public API."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import grpc
import pytest

from insta.gateway.v1 import accounts_pb2, posts_pb2, profiles_pb2
from tests.end_to_end.lists import everything
from tests.people import People, Person, failure

NOBODY = 2**40
USER_NOT_FOUND = (grpc.StatusCode.NOT_FOUND, "USER_NOT_FOUND")


async def unfollow(person: Person, user_id: int) -> int:
    request = profiles_pb2.UnfollowUserRequest(user_id=user_id)
    return (await person.profiles.UnfollowUser(request)).follower_count


async def by_username(person: Person, username: str) -> profiles_pb2.Profile:
    return (await person.profiles.GetProfile(profiles_pb2.GetProfileRequest(username=username))).profile


async def batch(person: Person, *user_ids: int) -> list[profiles_pb2.Profile]:
    request = profiles_pb2.BatchGetProfilesRequest(user_ids=user_ids)
    return list((await person.profiles.BatchGetProfiles(request)).profiles)


async def test_a_profile_shows_the_person_their_counters_and_how_they_stand_to_the_viewer(
    people: People, ana: Person, ben: Person
) -> None:
    cleo = await people.join(username=f"Cleo{ana.id}", first_name="Cleo", last_name="Ray", bio="Hello")
    await cleo.post()
    await cleo.post()
    await ana.follow(cleo)
    await ben.follow(cleo)
    await cleo.follow(ben)

    seen = await ben.profile(cleo)

    assert (seen.id, seen.username, seen.first_name, seen.last_name, seen.bio) == (
        cleo.id,
        f"Cleo{ana.id}",
        "Cleo",
        "Ray",
        "Hello",
    )
    assert (seen.post_count, seen.follower_count, seen.following_count) == (2, 2, 1)
    assert (seen.viewer_follows, seen.follows_viewer) == (True, True)
    assert seen.create_time == (await cleo.account()).create_time
    by_ana = await ana.profile(cleo)
    assert (by_ana.viewer_follows, by_ana.follows_viewer) == (True, False)
    of_ana = await cleo.profile(ana)
    assert (of_ana.viewer_follows, of_ana.follows_viewer) == (False, True)
    own = await cleo.profile(cleo)
    assert (own.viewer_follows, own.follows_viewer, own.following_count) == (False, False, 1)


@pytest.mark.parametrize("spell", [str, str.upper, str.lower, str.swapcase])
async def test_a_profile_is_found_by_its_username_in_any_case(
    people: People, ana: Person, spell: Callable[[str], str]
) -> None:
    name = f"Some.Body{ana.id}"
    person = await people.join(username=name)

    found = await by_username(ana, spell(name))

    assert found == await ana.profile(person)
    assert found.username == name


async def test_a_profile_that_does_not_exist_is_not_found(ana: Person) -> None:
    by_id = await failure(ana.profiles.GetProfile(profiles_pb2.GetProfileRequest(user_id=NOBODY)))
    by_name = await failure(by_username(ana, f"nobody{ana.id}"))

    assert (by_id.code, by_id.reason) == (by_name.code, by_name.reason) == USER_NOT_FOUND


async def test_many_profiles_come_in_the_order_of_their_ids_each_once(people: People, ana: Person, ben: Person) -> None:
    cleo = await people.join()
    await ana.follow(ben)
    await cleo.post()

    found = await batch(ana, cleo.id, NOBODY, ana.id, ben.id, cleo.id, 2**63 - 1)

    assert found == [await ana.profile(cleo), await ana.profile(ana), await ana.profile(ben)]


async def test_a_batch_of_unknown_profiles_is_empty(ana: Person) -> None:
    assert await batch(ana, NOBODY, NOBODY + 1) == []


async def test_a_hundred_profiles_can_be_read_at_once(ana: Person, ben: Person) -> None:
    found = await batch(ana, *range(NOBODY, NOBODY + 98), ben.id, ana.id)

    assert [profile.id for profile in found] == [ben.id, ana.id]


async def test_the_posts_of_a_person_are_listed_newest_first_as_the_viewer_sees_them(ana: Person, ben: Person) -> None:
    posts = [await ana.post(f"Post {number}") for number in range(3)]
    await ben.post("Not hers")
    await ben.like(posts[1])
    await ben.comment(posts[2])

    listed = await everything(ben.profiles.ListProfilePosts, profiles_pb2.ListProfilePostsRequest(user_id=ana.id))

    assert listed == [await ben.see(post) for post in reversed(posts)]
    assert [(post.like_count, post.viewer_liked, post.comment_count) for post in listed] == [
        (0, False, 1),
        (1, True, 0),
        (0, False, 0),
    ]
    assert {post.author.username for post in listed} == {ana.username}


@pytest.mark.parametrize("name", ["ListProfilePosts", "ListFollowers", "ListFollowing"])
async def test_the_lists_of_a_person_who_does_not_exist_are_not_found(ana: Person, name: str) -> None:
    request = getattr(profiles_pb2, f"{name}Request")(user_id=NOBODY)

    failed = await failure(getattr(ana.profiles, name)(request))

    assert (failed.code, failed.reason) == USER_NOT_FOUND


async def test_following_again_and_unfollowing_again_change_nothing(people: People, ana: Person, ben: Person) -> None:
    cleo = await people.join()
    await cleo.follow(ana)

    assert [await ben.follow(ana), await ben.follow(ana)] == [2, 2]
    assert (await ben.profile(ben)).following_count == 1
    assert [await unfollow(ben, ana.id), await unfollow(ben, ana.id)] == [1, 1]
    assert (await ben.profile(ben)).following_count == 0
    assert not (await ben.profile(ana)).viewer_follows


async def test_eight_follows_at_once_by_one_person_count_once(ana: Person, ben: Person) -> None:
    counts = await asyncio.gather(*(ben.follow(ana) for _ in range(8)))

    assert set(counts) == {1}
    assert (await ana.profile(ana)).follower_count == 1
    assert (await ana.profile(ben)).following_count == 1


async def test_eight_unfollows_at_once_count_once(people: People, ana: Person, ben: Person) -> None:
    await (await people.join()).follow(ana)
    await ben.follow(ana)

    counts = await asyncio.gather(*(unfollow(ben, ana.id) for _ in range(8)))

    assert set(counts) == {1}
    assert (await ana.profile(ben)).following_count == 0


async def test_two_people_follow_each_other_at_the_same_time(ana: Person, ben: Person) -> None:
    assert await asyncio.gather(ana.follow(ben), ben.follow(ana)) == [1, 1]

    seen = await ana.profile(ben)
    assert (seen.follower_count, seen.following_count) == (1, 1)
    assert (seen.viewer_follows, seen.follows_viewer) == (True, True)


async def test_nobody_follows_themselves(ana: Person) -> None:
    failed = await failure(ana.follow(ana))

    assert (failed.code, failed.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "SELF_FOLLOW")
    assert (await ana.profile(ana)).follower_count == 0


async def test_nobody_follows_or_unfollows_who_does_not_exist(ana: Person) -> None:
    follow = await failure(ana.profiles.FollowUser(profiles_pb2.FollowUserRequest(user_id=NOBODY)))
    unfollowed = await failure(unfollow(ana, NOBODY))

    assert (follow.code, follow.reason) == (unfollowed.code, unfollowed.reason) == USER_NOT_FOUND
    assert (await ana.profile(ana)).following_count == 0


async def test_follows_are_listed_newest_first_from_both_sides(people: People, ana: Person) -> None:
    others = [await people.join() for _ in range(3)]
    for other in others:
        await other.follow(ana)
        await ana.follow(other)
    # A follow that ended and began again is a new one.
    await unfollow(others[0], ana.id)
    await others[0].follow(ana)

    followers = await everything(ana.profiles.ListFollowers, profiles_pb2.ListFollowersRequest(user_id=ana.id))
    following = await everything(ana.profiles.ListFollowing, profiles_pb2.ListFollowingRequest(user_id=ana.id))

    assert [person.id for person in followers] == [others[0].id, others[2].id, others[1].id]
    assert [person.id for person in following] == [other.id for other in reversed(others)]
    assert [(person.username, person.first_name, person.gone) for person in following] == [
        (other.username, "Pat", False) for other in reversed(others)
    ]


async def test_a_new_name_shows_in_profile_posts_comments_and_lists(people: People, ana: Person, ben: Person) -> None:
    post = await ana.post()
    await ana.comment(post)
    await ana.like(post)
    await ana.follow(ben)
    name = f"Renamed{ana.id}"

    await ana.accounts.UpdateAccount(
        accounts_pb2.UpdateAccountRequest(
            account=accounts_pb2.Account(username=name, first_name="Ré", last_name="Named")
        )
    )

    (comment,) = await everything(ben.posts.ListComments, posts_pb2.ListCommentsRequest(post_id=post.id))
    (liker,) = await everything(ben.posts.ListPostLikes, posts_pb2.ListPostLikesRequest(post_id=post.id))
    (follower,) = await everything(ben.profiles.ListFollowers, profiles_pb2.ListFollowersRequest(user_id=ben.id))
    shown = [await ben.profile(ana), (await ben.see(post)).author, comment.author, liker, follower]
    assert {(person.username, person.first_name, person.last_name) for person in shown} == {(name, "Ré", "Named")}
