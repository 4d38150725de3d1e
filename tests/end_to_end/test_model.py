"""The public API against a model of it: whatever people do, in whatever order, both say the same."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import grpc
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from insta.gateway.v1 import accounts_pb2, admin_pb2, feed_pb2, posts_pb2, profiles_pb2, short_profile_pb2
from tests.end_to_end import blocking
from tests.people import Failure, Person
from tests.running import PASSWORD, SUPERUSER, RunningSuite

OK = "OK"
# On either kind of database.
EXAMPLES = 20
STEPS = 30
_PATIENCE_SECONDS = 10
texts = st.sampled_from(["First light", "Première lumière", "🌅", "line\nand line", "a" * 200])
titles = st.sampled_from(["First light", "Première lumière", "🌅"])
pictures = st.lists(st.sampled_from(["https://example.com/a.jpg", "https://example.com/b.jpg"]), max_size=3)
# Whom or what a rule is about: its place among all that there were, also those that are gone.
anyone = st.integers(0, 4)
anything = st.integers(0, 5)


@dataclass
class Member:
    """Somebody who joined."""

    caller: Person
    first_name: str = "Pat"
    bio: str = ""
    gone: bool = False


@dataclass
class Written:
    """A post."""

    author_id: int
    title: str
    description: str
    image_urls: list[str]
    likers: list[int] = field(default_factory=list)
    gone: bool = False


@dataclass
class Said:
    """A comment."""

    post_id: int
    author_id: int
    text: str
    gone: bool = False


class Network(RuleBasedStateMachine):
    """What the contracts say of people, posts, comments, likes and follows, beside a suite that is to do the same.

    Who is deleted takes everything with them: soon, so that the model waits for it.
    """

    def __init__(self, channel: grpc.Channel, boss: Person) -> None:
        super().__init__()
        self._channel = channel
        self._boss = boss
        self._members: dict[int, Member] = {}
        self._posts: dict[int, Written] = {}
        self._comments: dict[int, Said] = {}
        self._follows: list[tuple[int, int]] = []
        # Something to begin with, so that random steps meet something.
        for _ in range(3):
            self.join()
        self.write_post(who=0, title="First light", description="", image_urls=[])
        for who in (1, 2):
            self.like(who=who, what=0)
            self.comment(who=who, what=0, text="Lovely")
            self.follow(who=who, whom=0)
            self.follow(who=0, whom=who)

    # What people do.

    @precondition(lambda self: len(self._members) < 5)
    @rule()
    def join(self) -> None:
        person = blocking.join(self._channel)
        assert person.id > max(self._members, default=0)
        self._members[person.id] = Member(person)

    @rule(
        who=anyone,
        first_name=st.sampled_from(["", "Ana", "Zoë"]),
        bio=st.sampled_from(["", "Hello"]),
        masked=st.booleans(),
    )
    def update_account(self, who: int, first_name: str, bio: str, masked: bool) -> None:
        member = self._alive(who)
        request = accounts_pb2.UpdateAccountRequest(account=accounts_pb2.Account(first_name=first_name, bio=bio))
        if masked:
            request.update_mask.paths.append("bio")
        account = member.caller.accounts.UpdateAccount(request).account
        member.first_name = member.first_name if masked else first_name or member.first_name
        member.bio = bio if masked else bio or member.bio
        assert (account.first_name, account.bio) == (member.first_name, member.bio)

    @precondition(lambda self: self._count_alive() > 2)
    @rule(who=anyone, password=st.sampled_from([PASSWORD, "not the password"]))
    def delete_account(self, who: int, password: str) -> None:
        member = self._alive(who)
        expected = OK if password == PASSWORD else "WRONG_PASSWORD"
        request = accounts_pb2.DeleteAccountRequest(password=password)
        self._expect(expected, member.caller.accounts.DeleteAccount, request)
        if expected is OK:
            self._erase(member)

    @rule(who=anyone, title=titles, description=texts, image_urls=pictures)
    def write_post(self, who: int, title: str, description: str, image_urls: list[str]) -> None:
        caller = self._alive(who).caller
        request = posts_pb2.CreatePostRequest(title=title, description=description, image_urls=image_urls)
        post = caller.posts.CreatePost(request).post
        assert post.id > max(self._posts, default=0)
        self._posts[post.id] = Written(caller.id, title, description, image_urls)

    @precondition(lambda self: self._posts)
    @rule(
        who=anyone,
        what=anything,
        title=titles,
        image_urls=pictures,
        mask=st.sampled_from([[], ["image_urls"], ["title"]]),
    )
    def update_post(self, who: int, what: int, title: str, image_urls: list[str], mask: list[str]) -> None:
        caller = self._alive(who).caller
        post_id, post = self._post(what)
        request = posts_pb2.UpdatePostRequest(post=posts_pb2.Post(id=post_id, title=title, image_urls=image_urls))
        request.update_mask.paths.extend(mask)
        expected = self._right_to(post, "POST_NOT_FOUND", may=caller.id == post.author_id)
        self._expect(expected, caller.posts.UpdatePost, request)
        if expected is OK:
            post.title = title if mask != ["image_urls"] else post.title
            post.image_urls = image_urls if mask == ["image_urls"] or (not mask and image_urls) else post.image_urls

    @precondition(lambda self: self._posts)
    @rule(who=anyone, what=anything)
    def delete_post(self, who: int, what: int) -> None:
        caller = self._alive(who).caller
        post_id, post = self._post(what)
        expected = self._right_to(post, "POST_NOT_FOUND", may=caller.id == post.author_id)
        self._expect(expected, caller.posts.DeletePost, posts_pb2.DeletePostRequest(post_id=post_id))
        post.gone |= expected is OK

    @precondition(lambda self: self._posts)
    @rule(who=anyone, what=anything)
    def like(self, who: int, what: int) -> None:
        caller = self._alive(who).caller
        post_id, post = self._post(what)
        expected = self._right_to(post, "POST_NOT_FOUND")
        answer = self._expect(expected, caller.posts.LikePost, posts_pb2.LikePostRequest(post_id=post_id))
        if expected is OK:
            if caller.id not in post.likers:
                post.likers.append(caller.id)
            assert answer.like_count == len(post.likers)

    @precondition(lambda self: any(not post.gone for post in self._posts.values()))
    @rule(who=anyone, what=anything)
    def unlike(self, who: int, what: int) -> None:
        caller = self._alive(who).caller
        post_id, post = self._post(what, alive=True)
        answer = self._expect(OK, caller.posts.UnlikePost, posts_pb2.UnlikePostRequest(post_id=post_id))
        if caller.id in post.likers:
            post.likers.remove(caller.id)
        assert answer.like_count == len(post.likers)

    @precondition(lambda self: self._posts)
    @rule(who=anyone, what=anything, text=texts)
    def comment(self, who: int, what: int, text: str) -> None:
        caller = self._alive(who).caller
        post_id, post = self._post(what)
        expected = self._right_to(post, "POST_NOT_FOUND")
        request = posts_pb2.CreateCommentRequest(post_id=post_id, text=text)
        answer = self._expect(expected, caller.posts.CreateComment, request)
        if expected is OK:
            assert answer.comment.id > max(self._comments, default=0)
            self._comments[answer.comment.id] = Said(post_id, caller.id, text)

    @precondition(lambda self: self._reachable_comments())
    @rule(who=anyone, what=anything, text=texts)
    def edit_comment(self, who: int, what: int, text: str) -> None:
        caller = self._alive(who).caller
        comment_id, comment = self._comment(what)
        expected = self._right_to(comment, "COMMENT_NOT_FOUND", may=caller.id == comment.author_id)
        request = posts_pb2.UpdateCommentRequest(comment_id=comment_id, text=text)
        self._expect(expected, caller.posts.UpdateComment, request)
        comment.text = text if expected is OK else comment.text

    @precondition(lambda self: self._reachable_comments())
    @rule(who=anyone, what=anything)
    def delete_comment(self, who: int, what: int) -> None:
        caller = self._alive(who).caller
        comment_id, comment = self._comment(what)
        owners = (comment.author_id, self._posts[comment.post_id].author_id)
        expected = self._right_to(comment, "COMMENT_NOT_FOUND", may=caller.id in owners)
        request = posts_pb2.DeleteCommentRequest(comment_id=comment_id)
        self._expect(expected, caller.posts.DeleteComment, request)
        comment.gone |= expected is OK

    @rule(who=anyone, whom=anyone)
    def follow(self, who: int, whom: int) -> None:
        caller = self._alive(who).caller
        other_id, other = self._member(whom)
        expected = OK
        if other_id == caller.id:
            expected = "SELF_FOLLOW"
        elif other.gone:
            expected = "USER_NOT_FOUND"
        request = profiles_pb2.FollowUserRequest(user_id=other_id)
        answer = self._expect(expected, caller.profiles.FollowUser, request)
        if expected is OK:
            if (caller.id, other_id) not in self._follows:
                self._follows.append((caller.id, other_id))
            assert answer.follower_count == len(self._followers(other_id))

    @rule(who=anyone, whom=anyone)
    def unfollow(self, who: int, whom: int) -> None:
        caller = self._alive(who).caller
        other_id, other = self._member(whom)
        followed = (caller.id, other_id) in self._follows
        expected = "USER_NOT_FOUND" if other.gone else OK
        request = profiles_pb2.UnfollowUserRequest(user_id=other_id)
        answer = self._expect(expected, caller.profiles.UnfollowUser, request)
        if expected is OK:
            if followed:
                self._follows.remove((caller.id, other_id))
            assert answer.follower_count == len(self._followers(other_id))

    # What people see.

    @rule(who=anyone, whom=anyone)
    def read_lists_of_somebody(self, who: int, whom: int) -> None:
        profiles = self._alive(who).caller.profiles
        user_id, member = self._member(whom)
        expected = "USER_NOT_FOUND" if member.gone else OK
        for call, request_class, items, ids in (
            (profiles.ListFollowers, profiles_pb2.ListFollowersRequest, "followers", self._followers(user_id)),
            (profiles.ListFollowing, profiles_pb2.ListFollowingRequest, "following", self._following(user_id)),
        ):
            answer = self._expect(expected, call, request_class(user_id=user_id, page_size=100))
            if expected is OK:
                self._compare_people(getattr(answer, items), ids)
        answer = self._expect(
            expected, profiles.ListProfilePosts, profiles_pb2.ListProfilePostsRequest(user_id=user_id, page_size=100)
        )
        if expected is OK:
            assert [post.id for post in answer.posts] == self._posts_of(user_id)

    @rule(who=anyone)
    def read_home_feed(self, who: int) -> None:
        caller = self._alive(who).caller
        answer = self._expect(OK, caller.feed.ListHomeFeed, feed_pb2.ListHomeFeedRequest(page_size=100))
        followed = [self._posts_of(user_id) for user_id in self._following(caller.id)]
        assert [post.id for post in answer.posts] == sorted(itertools.chain(*followed), reverse=True)

    @precondition(lambda self: self._posts)
    @rule(who=anyone, what=anything)
    def read_lists_of_a_post(self, who: int, what: int) -> None:
        posts = self._alive(who).caller.posts
        post_id, post = self._post(what)
        expected = self._right_to(post, "POST_NOT_FOUND")
        likes = self._expect(
            expected, posts.ListPostLikes, posts_pb2.ListPostLikesRequest(post_id=post_id, page_size=100)
        )
        comments = self._expect(
            expected, posts.ListComments, posts_pb2.ListCommentsRequest(post_id=post_id, page_size=100)
        )
        self._expect(expected, posts.GetPost, posts_pb2.GetPostRequest(post_id=post_id))
        if expected is OK:
            self._compare_people(likes.profiles, post.likers[::-1])
            on_post = self._comments_on(post_id)
            assert [comment.id for comment in comments.comments] == on_post
            assert [comment.text for comment in comments.comments] == [self._comments[one].text for one in on_post]
            self._compare_people(
                [comment.author for comment in comments.comments], [self._comments[one].author_id for one in on_post]
            )

    @invariant()
    def everybody_is_seen_as_they_are(self) -> None:
        viewer = self._viewer()
        request = profiles_pb2.BatchGetProfilesRequest(user_ids=self._members)
        seen = viewer.profiles.BatchGetProfiles(request).profiles
        alive = [user_id for user_id, member in self._members.items() if not member.gone]
        assert [profile.id for profile in seen] == alive
        for profile in seen:
            member = self._members[profile.id]
            assert profile.username == member.caller.username
            assert (profile.first_name, profile.bio) == (member.first_name, member.bio)
            assert profile.post_count == len(self._posts_of(profile.id))
            assert profile.follower_count == len(self._followers(profile.id))
            assert profile.following_count == len(self._following(profile.id))
            assert profile.viewer_follows == ((viewer.id, profile.id) in self._follows)
            assert profile.follows_viewer == ((profile.id, viewer.id) in self._follows)

    @precondition(lambda self: self._posts)
    @invariant()
    def every_post_is_seen_as_it_is(self) -> None:
        viewer = self._viewer()
        seen = viewer.posts.BatchGetPosts(posts_pb2.BatchGetPostsRequest(post_ids=self._posts)).posts
        assert [post.id for post in seen] == [post_id for post_id, post in self._posts.items() if not post.gone]
        for shown in seen:
            post = self._posts[shown.id]
            assert (shown.title, shown.description, list(shown.image_urls)) == (
                post.title,
                post.description,
                post.image_urls,
            )
            self._compare_people([shown.author], [post.author_id])
            assert (shown.like_count, shown.viewer_liked) == (len(post.likers), viewer.id in post.likers)
            assert shown.comment_count == len(self._comments_on(shown.id))

    def teardown(self) -> None:
        for place in range(len(self._members)):
            self.read_lists_of_somebody(who=0, whom=place)
        for place in range(len(self._posts)):
            self.read_lists_of_a_post(who=0, what=place)

    # What the model knows.

    def _erase(self, member: Member) -> None:
        user_id = member.caller.id
        member.gone = True
        for thing in (*self._posts.values(), *self._comments.values()):
            thing.gone |= thing.author_id == user_id
        for post in self._posts.values():
            post.likers = [liker for liker in post.likers if liker != user_id]
        self._follows = [pair for pair in self._follows if user_id not in pair]
        end = time.monotonic() + _PATIENCE_SECONDS
        request = admin_pb2.GetErasureRequest(user_id=user_id)
        while not self._boss.admin.GetErasure(request).complete:
            assert time.monotonic() < end
            time.sleep(0.01)

    def _count_alive(self) -> int:
        return sum(not member.gone for member in self._members.values())

    def _alive(self, place: int) -> Member:
        alive = [member for member in self._members.values() if not member.gone]
        return alive[place % len(alive)]

    def _viewer(self) -> Person:
        """Somebody to look through: another one as things go on."""
        return self._alive(len(self._follows) + len(self._comments) + len(self._posts)).caller

    def _member(self, place: int) -> tuple[int, Member]:
        return list(self._members.items())[place % len(self._members)]

    def _post(self, place: int, alive: bool = False) -> tuple[int, Written]:
        found = [(post_id, post) for post_id, post in self._posts.items() if not (alive and post.gone)]
        return found[place % len(found)]

    def _reachable_comments(self) -> list[tuple[int, Said]]:
        """Those on posts that exist, deleted ones among them: what a deleted post leaves behind disappears later."""
        return [(one, comment) for one, comment in self._comments.items() if not self._posts[comment.post_id].gone]

    def _comment(self, place: int) -> tuple[int, Said]:
        found = self._reachable_comments()
        return found[place % len(found)]

    def _posts_of(self, user_id: int) -> list[int]:
        return [post_id for post_id, post in self._posts.items() if post.author_id == user_id and not post.gone][::-1]

    def _comments_on(self, post_id: int) -> list[int]:
        return [one for one, said in self._comments.items() if said.post_id == post_id and not said.gone][::-1]

    def _followers(self, user_id: int) -> list[int]:
        return [follower_id for follower_id, followee_id in self._follows if followee_id == user_id][::-1]

    def _following(self, user_id: int) -> list[int]:
        return [followee_id for follower_id, followee_id in self._follows if follower_id == user_id][::-1]

    def _right_to(self, thing: Written | Said, missing: str, may: bool = True) -> str:
        if thing.gone:
            return missing
        return OK if may else "NOT_OWNER"

    def _compare_people(self, shown: Any, user_ids: list[int]) -> None:
        assert list(shown) == [self._short_profile(user_id) for user_id in user_ids]

    def _short_profile(self, user_id: int) -> short_profile_pb2.ShortProfile:
        member = self._members[user_id]
        if member.gone:
            return short_profile_pb2.ShortProfile(id=user_id, gone=True)
        return short_profile_pb2.ShortProfile(id=user_id, username=member.caller.username, first_name=member.first_name)

    def _expect(self, expected: str, call: Callable[[Any], Any], request: Any) -> Any:
        """Call; it must succeed or fail as expected. Returns the response of a call that succeeded."""
        response, outcome = None, OK
        try:
            response = call(request)
        except grpc.RpcError as error:
            outcome = Failure(error).reason
        assert outcome == expected, (type(request).DESCRIPTOR.name, request)
        return response


def test_the_suite_does_what_the_model_says(together: RunningSuite) -> None:
    with blocking.channel_to(together) as channel:
        boss = blocking.person(channel, SUPERUSER)
        run_state_machine_as_test(
            lambda: Network(channel, boss),
            settings=settings(
                max_examples=EXAMPLES,
                stateful_step_count=STEPS,
                derandomize=True,
                deadline=None,
                # To make a counterexample smaller takes minutes: add Phase.shrink when there is one.
                phases=[Phase.generate],
                suppress_health_check=[HealthCheck.too_slow],
            ),
        )
