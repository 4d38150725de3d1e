"""Images, uploads under way, and what is to be deleted from the store of images."""

import peewee

from chassis.models import BooleanField, IdField, Table


def up(migrator, db):
    class Media(Table):
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
        post_id = peewee.BigIntegerField(null=True, index=True)
        position = peewee.IntegerField()
        avatar_of = peewee.BigIntegerField(null=True, unique=True)
        expire_time = peewee.BigIntegerField(null=True, index=True)

        class Meta:
            constraints = (
                peewee.Check("post_id IS NULL OR avatar_of IS NULL"),
                peewee.Check("(post_id IS NULL AND avatar_of IS NULL) = (expire_time IS NOT NULL)"),
            )

    class Upload(Table):
        id = IdField()
        owner_id = peewee.BigIntegerField(index=True)
        folder = peewee.TextField(unique=True)
        content_type = peewee.TextField()
        size = peewee.IntegerField()

    class Discard(Table):
        folder = peewee.TextField(primary_key=True)
        owner_id = peewee.BigIntegerField(index=True)
        due_time = peewee.BigIntegerField(index=True)
        begun = BooleanField()
        open_until = peewee.BigIntegerField()

    tables = [Media, Upload, Discard]
    with db.bind_ctx(tables):
        db.create_tables(tables)
