"""Posts, their counters and the secrets of the service."""

import peewee

from chassis.models import IdField, Table


def up(migrator, db):
    class Post(Table):
        id = IdField()
        author_id = peewee.BigIntegerField(index=True)
        title = peewee.TextField()
        description = peewee.TextField()
        image_urls = peewee.TextField()
        create_time = peewee.BigIntegerField()
        update_time = peewee.BigIntegerField()

    class AuthorCounter(Table):
        author_id = peewee.BigIntegerField(primary_key=True)
        post_count = peewee.BigIntegerField()

    class Secret(Table):
        name = peewee.TextField(primary_key=True)
        value = peewee.BlobField()

    tables = [Post, AuthorCounter, Secret]
    with db.bind_ctx(tables):
        db.create_tables(tables)
