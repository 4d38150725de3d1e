"""Tables of the posts service."""

from __future__ import annotations

import peewee

from chassis.models import IdField, Table


class Post(Table):
    """A post. `image_urls` is a JSON array: they are only ever read and written together."""

    id = IdField()
    author_id = peewee.BigIntegerField(index=True)
    title = peewee.TextField()
    description = peewee.TextField()
    image_urls = peewee.TextField()
    create_time = peewee.BigIntegerField()
    update_time = peewee.BigIntegerField()


class AuthorCounter(Table):
    """How many posts an author has, changed in the transaction that adds or removes one."""

    author_id = peewee.BigIntegerField(primary_key=True)
    post_count = peewee.BigIntegerField()
