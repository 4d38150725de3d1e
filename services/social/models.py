"""Tables of the social service."""

from __future__ import annotations

import peewee

from chassis.models import IdField, Table


class Follow(Table):
    """One person follows another."""

    id = IdField()
    follower_id = peewee.BigIntegerField(index=True)
    followee_id = peewee.BigIntegerField(index=True)
    create_time = peewee.BigIntegerField()

    class Meta:
        indexes = ((("follower_id", "followee_id"), True),)


class Like(Table):
    """A person likes a post."""

    id = IdField()
    user_id = peewee.BigIntegerField()
    post_id = peewee.BigIntegerField(index=True)
    create_time = peewee.BigIntegerField()

    class Meta:
        indexes = ((("user_id", "post_id"), True),)


class Comment(Table):
    """A person's comment on a post."""

    id = IdField()
    post_id = peewee.BigIntegerField(index=True)
    author_id = peewee.BigIntegerField(index=True)
    text = peewee.TextField()
    create_time = peewee.BigIntegerField()
    update_time = peewee.BigIntegerField()


class PostCounter(Table):
    """What is counted of a post, changed in the transaction of the row that counts."""

    post_id = peewee.BigIntegerField(primary_key=True)
    like_count = peewee.BigIntegerField()
    comment_count = peewee.BigIntegerField()


class UserCounter(Table):
    """What is counted of a person, changed in the transaction of the row that counts."""

    user_id = peewee.BigIntegerField(primary_key=True)
    follower_count = peewee.BigIntegerField()
    followee_count = peewee.BigIntegerField()
