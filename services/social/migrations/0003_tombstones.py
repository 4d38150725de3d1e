"""What is gone, and how far the logs of other services were read."""

import peewee

from chassis.models import BooleanField, Table


def up(migrator, db):
    class Tombstone(Table):
        kind = peewee.TextField()
        gone_id = peewee.BigIntegerField()
        erased = BooleanField(index=True)

        class Meta:
            primary_key = peewee.CompositeKey("kind", "gone_id")

    class Cursor(Table):
        log = peewee.TextField(primary_key=True)
        epoch = peewee.TextField()
        offset = peewee.BigIntegerField()

    tables = [Tombstone, Cursor]
    with db.bind_ctx(tables):
        db.create_tables(tables)
