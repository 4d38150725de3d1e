"""Sessions, the event log, the counts of wrong passwords, and which password an account has."""

import peewee

from chassis.models import IdField, Table


def up(migrator, db):
    class Session(Table):
        id = peewee.TextField(primary_key=True)
        user_id = peewee.BigIntegerField(index=True)
        family_hash = peewee.BlobField(unique=True)
        token_hash = peewee.BlobField()
        client_name = peewee.TextField()
        address = peewee.TextField()
        create_time = peewee.BigIntegerField()
        use_time = peewee.BigIntegerField()
        expire_time = peewee.BigIntegerField(index=True)

    class Throttle(Table):
        key = peewee.BlobField(primary_key=True)
        empty_time = peewee.BigIntegerField(index=True)
        open_time = peewee.BigIntegerField()

    class LoggedEvent(Table):
        id = IdField()
        time = peewee.BigIntegerField(index=True)
        payload = peewee.BlobField()

    class EventLog(Table):
        id = peewee.IntegerField(primary_key=True)
        epoch = peewee.TextField()

    tables = [Session, Throttle, LoggedEvent, EventLog]
    with db.bind_ctx(tables):
        db.create_tables(tables)
    migrator.migrate(migrator.add_column("user", "password_version", peewee.IntegerField(default=0)))
