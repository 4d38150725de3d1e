"""The home feed: the posts of whom one follows, exactly as they are at the moment."""

from __future__ import annotations

import asyncio

from insta.gateway.v1 import accounts_pb2, feed_pb2, posts_pb2, profiles_pb2
from tests.people import People, Person
from tests.running import PASSWORD


def ids(posts: list[posts_pb2.Post]) -> list[int]:
    return [post.id for post in posts]


async def test_the_feed_holds_the_posts_of_whom_one_follows_and_no_others_newest_first(people: People) -> None:
    ana, followed, other, stranger = [await people.join() for _ in range(4)]
    written = [await author.post() for author in (followed, stranger, other, followed, ana, other)]
    for author in (followed, other):
        await ana.follow(author)
    # Who follows her does not show what she sees.
    await stranger.follow(ana)

    assert ids(await ana.home()) == [written[index].id for index in (5, 3, 2, 0)]
    assert ids(await stranger.home()) == [written[4].id]


async def test_who_follows_nobody_has_an_empty_feed(ana: Person) -> None:
    await ana.post()

    answer = await ana.feed.ListHomeFeed(feed_pb2.ListHomeFeedRequest())

    assert answer == feed_pb2.ListHomeFeedResponse()


async def test_whom_one_follows_may_have_written_nothing(ana: Person, ben: Person) -> None:
    await ana.follow(ben)

    assert await ana.home() == []


async def test_a_post_in_the_feed_is_seen_as_it_is_everywhere(ana: Person, ben: Person) -> None:
    post = await ben.post(description="Told", image_urls=["https://example.com/a.jpg"])
    await ana.follow(ben)
    await ana.like(post)
    await ben.comment(post)

    (seen,) = await ana.home()

    assert seen == await ana.see(post)
    assert (seen.viewer_liked, seen.like_count, seen.comment_count) == (True, 1, 1)
    assert seen.author.username == ben.username


async def test_what_changes_shows_in_the_next_call(ana: Person, ben: Person) -> None:
    first = await ben.post()
    assert await ana.home() == []

    await ana.follow(ben)
    assert ids(await ana.home()) == [first.id]
    second = await ben.post()
    assert ids(await ana.home()) == [second.id, first.id]
    await ana.like(first)
    assert [post.viewer_liked for post in await ana.home()] == [False, True]
    await ben.posts.DeletePost(posts_pb2.DeletePostRequest(post_id=second.id))
    assert ids(await ana.home()) == [first.id]
    await ana.profiles.UnfollowUser(profiles_pb2.UnfollowUserRequest(user_id=ben.id))
    assert await ana.home() == []


async def test_the_posts_of_an_account_that_was_deleted_are_gone_at_once_and_leave_the_page_full(
    people: People,
) -> None:
    ana, leaving, staying = [await people.join() for _ in range(3)]
    for author in (leaving, staying):
        await ana.follow(author)
    kept = [await staying.post() for _ in range(5)]
    for _ in range(5):
        await leaving.post()

    await leaving.accounts.DeleteAccount(accounts_pb2.DeleteAccountRequest(password=PASSWORD))

    # Often: what is erased afterwards goes bit by bit.
    for _ in range(20):
        assert ids(await ana.home(page_size=3)) == [post.id for post in kept[:1:-1]]


async def test_an_unfollow_shows_on_later_pages_too(people: People) -> None:
    ana, ben, cem = [await people.join() for _ in range(3)]
    for author in (ben, cem):
        await ana.follow(author)
    written = [await author.post() for author in (ben, cem) * 3]
    first = await ana.feed.ListHomeFeed(feed_pb2.ListHomeFeedRequest(page_size=2))

    await ana.profiles.UnfollowUser(profiles_pb2.UnfollowUserRequest(user_id=ben.id))
    second = await ana.feed.ListHomeFeed(feed_pb2.ListHomeFeedRequest(page_size=2, page_token=first.next_page_token))

    assert ids([*first.posts]) == [written[5].id, written[4].id]
    assert ids([*second.posts]) == [written[3].id, written[1].id]
    assert second.next_page_token == ""


async def test_a_long_feed_is_read_to_its_end_whoever_wrote_how_much(people: People) -> None:
    ana = await people.join()
    authors = [await people.join() for _ in range(12)]
    await asyncio.gather(*(ana.follow(author) for author in authors))
    written = []
    for number, author in enumerate(authors):
        # One wrote most, and the others a post or two.
        written += [await author.post() for _ in range(40 if number == 5 else 1 + number % 2)]

    for size in (1, 7, 100):
        assert await _read(ana, size) == [post.id for post in reversed(written)]


async def _read(reader: Person, size: int) -> list[int]:
    found: list[int] = []
    token = ""
    while True:
        request = feed_pb2.ListHomeFeedRequest(page_size=size, page_token=token)
        answer = await reader.feed.ListHomeFeed(request)
        found += ids([*answer.posts])
        token = answer.next_page_token
        if not token:
            return found
        assert len(answer.posts) == size
