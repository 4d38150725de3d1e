"""The event log."""

import peewee

from chassis.models import IdField, Table


def up(migrator, db):
    class LoggedEvent(Table):
        id = IdField()
        time = peewee.BigIntegerField(index=True)
        payload = peewee.BlobField()

    class EventLog(Table):
        id = peewee.IntegerField(primary_key=True)
        epoch = peewee.TextField()
        floor_offset = peewee.BigIntegerField(default=0)

    tables = [LoggedEvent, EventLog]
    with db.bind_ctx(tables):
        db.create_tables(tables)
