"""Tables of the posts service."""

from __future__ import annotations

import peewee

from chassis.models import BooleanField, IdField, Table


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


class Media(Table):
    """An image: in a post, an avatar, or neither, and then it goes at `expire_time` (microseconds since 1970).

    `variants` is a JSON array of [width, height, content type, bytes]. Their blobs are in the folder `folder` of the
    store.
    """

    id = IdField()
    owner_id = peewee.BigIntegerField(index=True)
    folder = peewee.TextField(unique=True)
    content_type = peewee.TextField()
    width = peewee.IntegerField()
    height = peewee.IntegerField()
    blurhash = peewee.TextField()
    alt_text = peewee.TextField()
    variants = peewee.TextField()
    create_time = peewee.BigIntegerField()
    # No foreign key: the version before this deletes posts and knows no images.
    post_id = peewee.BigIntegerField(null=True, index=True)
    position = peewee.IntegerField(default=0)
    # Its owner, whose avatar it is: nobody has two.
    avatar_of = peewee.BigIntegerField(null=True, unique=True)
    expire_time = peewee.BigIntegerField(null=True, index=True)

    class Meta:
        constraints = (
            peewee.Check("post_id IS NULL OR avatar_of IS NULL"),
            peewee.Check("(post_id IS NULL AND avatar_of IS NULL) = (expire_time IS NOT NULL)"),
        )


class Upload(Table):
    """A file that its owner uploads to the store themselves, into the folder `folder`."""

    id = IdField()
    owner_id = peewee.BigIntegerField(index=True)
    folder = peewee.TextField(unique=True)
    content_type = peewee.TextField()
    size = peewee.IntegerField()


class Discard(Table):
    """A folder of blobs that is deleted once it is due, unless it is taken out before: nothing refers to it, not yet or
    no longer.

    `begun` tells that it is being deleted, which nothing can stop any more; `due_time` is then when to try it anew.
    Until `open_until` somebody may write to it, and then it is deleted once more. Both are microseconds since 1970.
    """

    folder = peewee.TextField(primary_key=True)
    owner_id = peewee.BigIntegerField(index=True)
    due_time = peewee.BigIntegerField(index=True)
    begun = BooleanField()
    open_until = peewee.BigIntegerField(default=0)
