"""What is gone, how far the log of the users service was read, and the event log."""

import peewee

from chassis.models import BooleanField, IdField, Table


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

    class LoggedEvent(Table):
        id = IdField()
        time = peewee.BigIntegerField(index=True)
        payload = peewee.BlobField()

    class EventLog(Table):
        id = peewee.IntegerField(primary_key=True)
        epoch = peewee.TextField()
        floor_offset = peewee.BigIntegerField(default=0)

    tables = [Tombstone, Cursor, LoggedEvent, EventLog]
    with db.bind_ctx(tables):
        db.create_tables(tables)
