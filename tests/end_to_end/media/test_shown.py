"""Images in posts and as avatars."""

from __future__ import annotations

import asyncio

from insta.gateway.v1 import feed_pb2, posts_pb2, profiles_pb2, short_profile_pb2
from tests.end_to_end.lists import everything
from tests.end_to_end.media.calls import (
    MEDIA_IN_USE,
    MEDIA_NOT_FOUND,
    NOBODYS,
    NOT_OWNER,
    change_media,
    delete,
    new_id,
    read,
    remove_avatar,
    show_as_avatar,
    shown,
    told,
)
from tests.people import People, Person, failure, until
from tests.posts.media.drawing import (
    encoded,
    picture,
)
from tests.running import RunningSuite

# Posts.


async def test_a_post_shows_its_images_in_order_wherever_it_is_read(ana: Person, ben: Person) -> None:
    await ben.follow(ana)
    uploaded = [await ana.upload(alt_text=str(number)) for number in range(3)]
    other = await ana.post(media_ids=[(await ana.upload()).id])
    order = [uploaded[2], uploaded[0], uploaded[1]]

    post = await ana.post(media_ids=[media.id for media in order], image_urls=["https://example.com/a.jpg"])

    assert list(post.media) == order
    request = posts_pb2.BatchGetPostsRequest(post_ids=[post.id, other.id])
    batch = list((await ben.posts.BatchGetPosts(request)).posts)
    profile = await everything(ben.profiles.ListProfilePosts, profiles_pb2.ListProfilePostsRequest(user_id=ana.id))
    for seen in (await ben.see(post), batch[0], profile[0]):
        assert list(seen.media) == order
        assert list(seen.image_urls) == ["https://example.com/a.jpg"]
    assert shown(batch[1]) == shown(other)

    async def in_feed() -> list[list[int]]:
        feed = await ben.feed.ListHomeFeed(feed_pb2.ListHomeFeedRequest(page_size=10))
        return [shown(found) for found in feed.posts]

    await until(in_feed, [[media.id for media in order], shown(other)])


async def test_ten_images_are_shown(ana: Person) -> None:
    media_ids = [(await ana.upload()).id for _ in range(10)][::-1]

    assert shown(await ana.see(await ana.post(media_ids=media_ids))) == media_ids


async def test_an_update_reorders_removes_and_adds_images(ana: Person, ben: Person) -> None:
    first, second, third, fourth = [(await ana.upload()).id for _ in range(4)]
    post = await ana.post(media_ids=[first, second, third])

    for media_ids in ([third, first, second], [third, second], [fourth, second, third], [fourth], [first, fourth]):
        changed = await change_media(ana, post, media_ids, "media")
        assert shown(changed) == shown(await ben.see(post)) == media_ids
    assert changed.update_time.ToNanoseconds() > post.update_time.ToNanoseconds()
    assert shown(await change_media(ana, post, [], "media")) == []


async def test_an_update_without_a_mask_changes_images_that_are_named_and_keeps_them_otherwise(ana: Person) -> None:
    first, second = [(await ana.upload()).id for _ in range(2)]
    post = await ana.post("Old", media_ids=[first])

    assert shown(await change_media(ana, post, [second, first])) == [second, first]
    assert shown(await change_media(ana, post, [])) == [second, first]
    renamed = await ana.posts.UpdatePost(posts_pb2.UpdatePostRequest(post=posts_pb2.Post(id=post.id, title="New")))
    assert (renamed.post.title, shown(renamed.post)) == ("New", [second, first])
    # What the mask does not name is not changed.
    assert shown(await change_media(ana, post, [first], "description")) == [second, first]


async def test_an_update_that_fails_changes_nothing(ana: Person, ben: Person) -> None:
    mine, used = [(await ana.upload()).id for _ in range(2)]
    post = await ana.post("Old", media_ids=[mine])
    await ana.post(media_ids=[used])
    hidden = (await ben.upload()).id
    seen = (await ben.upload()).id
    await ben.post(media_ids=[seen])
    before = await ana.see(post)

    for media_id, expected in (
        (used, MEDIA_IN_USE),
        (hidden, MEDIA_NOT_FOUND),
        (NOBODYS, MEDIA_NOT_FOUND),
        (seen, NOT_OWNER),
    ):
        assert told(await failure(change_media(ana, post, [media_id], "media"))) == expected
        assert told(await failure(change_media(ana, post, [mine, media_id], "media"))) == expected
        assert told(await failure(ana.post(media_ids=[mine, media_id] if media_id != used else [used]))) in (
            expected,
            MEDIA_IN_USE,
        )
    assert await ana.see(post) == before
    assert (await ana.profile(ana)).post_count == 2


async def test_an_image_that_a_post_shows_no_longer_can_be_used_again(ana: Person, ben: Person) -> None:
    media = await ana.upload()
    post = await ana.post(media_ids=[media.id])
    await change_media(ana, post, [], "media")

    assert told(await failure(read(ben, media.id))) == MEDIA_NOT_FOUND
    assert await read(ana, media.id) == media
    other = await ana.post(media_ids=[media.id])
    assert list((await ben.see(other)).media) == [media]
    await change_media(ana, other, [], "media")
    assert await show_as_avatar(ana, media.id) == media
    await remove_avatar(ana)
    await delete(ana, media.id)


async def test_an_image_is_shown_in_one_place_only(ana: Person) -> None:
    in_post, avatar = await ana.upload(), await ana.upload()
    post = await ana.post(media_ids=[in_post.id])
    await show_as_avatar(ana, avatar.id)
    empty = await ana.post()

    for call in (
        ana.post(media_ids=[in_post.id]),
        ana.post(media_ids=[avatar.id]),
        change_media(ana, empty, [in_post.id], "media"),
        change_media(ana, empty, [avatar.id], "media"),
        show_as_avatar(ana, in_post.id),
        delete(ana, in_post.id),
        delete(ana, avatar.id),
    ):
        assert told(await failure(call)) == MEDIA_IN_USE
    assert shown(await ana.see(post)) == [in_post.id]
    assert (await ana.account()).avatar == avatar
    assert (await ana.profile(ana)).post_count == 2


async def test_a_post_that_comes_again_shows_its_images_once(ana: Person) -> None:
    media = await ana.upload()
    request = posts_pb2.CreatePostRequest(title="Once", media_ids=[media.id], request_id=new_id())

    first, second = await asyncio.gather(ana.posts.CreatePost(request), ana.posts.CreatePost(request))

    assert first == second
    assert list(first.post.media) == [media]


# Avatars.


async def people_seen(reader: Person, author: Person, post: posts_pb2.Post) -> list[short_profile_pb2.ShortProfile]:
    """Somebody in one line, wherever they are: as author, by comments, likes and follows."""
    comments = await everything(reader.posts.ListComments, posts_pb2.ListCommentsRequest(post_id=post.id))
    likers = await everything(reader.posts.ListPostLikes, posts_pb2.ListPostLikesRequest(post_id=post.id))
    followers = await everything(reader.profiles.ListFollowers, profiles_pb2.ListFollowersRequest(user_id=reader.id))
    seen = [(await reader.see(post)).author, *(comment.author for comment in comments), *likers, *followers]
    found = [person for person in seen if person.id == author.id]
    assert len(found) == 4
    return found


async def test_an_avatar_is_seen_wherever_its_owner_is(people: People, ana: Person, ben: Person) -> None:
    post = await ana.post()
    await ana.comment(post)
    await ana.like(post)
    await ana.follow(ben)
    assert {seen.avatar_url for seen in await people_seen(ben, ana, post)} == {""}
    first, second = await ana.upload(encoded(picture(400, 300), "PNG")), await ana.upload()

    for avatar in (first, second, None):
        if avatar is None:
            await remove_avatar(ana)
        else:
            assert await show_as_avatar(ana, avatar.id) == avatar
        # What a profile shows is read anew each time, whatever process is asked.
        for found in (await ana.account(), await ben.profile(ana)):
            assert (found.avatar if found.HasField("avatar") else None) == avatar
        url = "" if avatar is None else avatar.variants[0].url

        async def urls() -> set[str]:
            return {seen.avatar_url for seen in await people_seen(ben, ana, post)}

        # The gateway that was asked knows at once; of workers another may have been asked.
        await until(urls, {url})
    assert told(await failure(read(ben, first.id))) == MEDIA_NOT_FOUND
    assert await read(ana, first.id) == first


async def test_the_gateway_that_changed_an_avatar_shows_it_at_once(cid: Person) -> None:
    post = await cid.post()
    for _ in range(5):
        avatar = await cid.upload()
        await show_as_avatar(cid, avatar.id)
        assert (await cid.see(post)).author.avatar_url == avatar.variants[0].url
        await remove_avatar(cid)
        assert (await cid.see(post)).author.avatar_url == ""


async def test_every_process_soon_shows_a_new_avatar(suite: RunningSuite, ana: Person) -> None:
    """Each connection of workers may be another process."""
    readers = [People(suite.address) for _ in range(6)]
    post = await ana.post()
    seers = [Person(reader.channel, ana.id, ana.username, ana.token) for reader in readers]
    for seer in seers:
        assert (await seer.see(post)).author.avatar_url == ""

    avatar = await ana.upload()
    await show_as_avatar(ana, avatar.id)

    async def urls() -> set[str]:
        return {(await seer.see(post)).author.avatar_url for seer in seers}

    # Before long each would ask anew by itself: the news has to be faster.
    await until(urls, {avatar.variants[0].url}, seconds=5)
    for reader in readers:
        await reader.channel.close()


async def test_repeating_changes_of_an_avatar_changes_nothing_more(ana: Person) -> None:
    media = await ana.upload()

    assert await show_as_avatar(ana, media.id) == await show_as_avatar(ana, media.id) == media
    await remove_avatar(ana)
    await remove_avatar(ana)
    assert not (await ana.account()).HasField("avatar")


async def test_of_avatars_that_are_set_at_once_one_stays(ana: Person) -> None:
    uploaded = [await ana.upload() for _ in range(4)]

    await asyncio.gather(*(show_as_avatar(ana, media.id) for media in uploaded))

    avatar = (await ana.account()).avatar
    assert avatar in uploaded
    for media in uploaded:
        if media != avatar:
            await delete(ana, media.id)
