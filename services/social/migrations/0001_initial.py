"""Follows, likes, comments, their counters and the secrets of the service."""

import peewee

from chassis.models import IdField, Table


def up(migrator, db):
    class Follow(Table):
        id = IdField()
        follower_id = peewee.BigIntegerField(index=True)
        followee_id = peewee.BigIntegerField(index=True)
        create_time = peewee.BigIntegerField()

        class Meta:
            indexes = ((("follower_id", "followee_id"), True),)

    class Like(Table):
        id = IdField()
        user_id = peewee.BigIntegerField()
        post_id = peewee.BigIntegerField(index=True)
        create_time = peewee.BigIntegerField()

        class Meta:
            indexes = ((("user_id", "post_id"), True),)

    class Comment(Table):
        id = IdField()
        post_id = peewee.BigIntegerField(index=True)
        author_id = peewee.BigIntegerField(index=True)
        text = peewee.TextField()
        create_time = peewee.BigIntegerField()
        update_time = peewee.BigIntegerField()

    class PostCounter(Table):
        post_id = peewee.BigIntegerField(primary_key=True)
        like_count = peewee.BigIntegerField()
        comment_count = peewee.BigIntegerField()

    class UserCounter(Table):
        user_id = peewee.BigIntegerField(primary_key=True)
        follower_count = peewee.BigIntegerField()
        followee_count = peewee.BigIntegerField()

    class Secret(Table):
        name = peewee.TextField(primary_key=True)
        value = peewee.BlobField()

    tables = [Follow, Like, Comment, PostCounter, UserCounter, Secret]
    with db.bind_ctx(tables):
        db.create_tables(tables)
