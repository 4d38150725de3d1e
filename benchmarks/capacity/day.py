"""The assumed day of somebody who uses the suite that day. Nothing here is measured: change it to see what follows."""

from __future__ import annotations

from typing import NamedTuple


class Habit(NamedTuple):
    """What somebody does on a day.

    Attributes:
        call: The kind of call.
        per_day: How often.
        why: Where the number comes from.
    """

    call: str
    per_day: float
    why: str


# The numbers that Instagram gave in June 2016: 300 million people a day, 95 million posts, 4.2 billion likes.
DAY = (
    Habit("ListHomeFeed", 24, "8 visits, 3 pages of 20 each"),
    Habit("GetPost", 10, "a post opened on every other visit, or by a link"),
    Habit("ListComments", 8, "comments of most posts that are opened"),
    Habit("GetProfile", 8, "one a visit"),
    Habit("ListProfilePosts", 8, "with each profile, its first page"),
    Habit("LikePost", 14, "Instagram, June 2016: 4.2 billion likes a day by 300 million people"),
    Habit("CreateComment", 1, "one for 14 likes"),
    Habit("FollowUser", 0.5, "one every other day"),
    Habit("CreatePost", 0.32, "Instagram, June 2016: 95 million posts a day by 300 million people"),
    Habit("RefreshSession", 8, "one a visit: access tokens live 15 minutes"),
    Habit("UploadMedia", 0.32, "one image a post"),
    Habit("Login", 1 / 30, "a session lives 30 days"),
)
# How much busier the busiest hour is than the average one.
PEAK = 2.5
# Of the posts that come with a page, whose images are looked at and are not on the device yet.
IMAGES_A_PAGE = 10
IMAGE_BYTES = 100_000
# Of the images that are looked at, how many come from a cache in front of the bucket.
CACHED = 0.95
