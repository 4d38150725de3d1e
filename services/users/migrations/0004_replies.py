"""Answers to requests that named themselves."""

import peewee

from chassis.models import IdField, Table


def up(migrator, db):
    class Reply(Table):
        id = IdField()
        caller_id = peewee.BigIntegerField()
        method = peewee.TextField()
        request_id = peewee.TextField()
        request_mac = peewee.BlobField()
        response = peewee.BlobField()
        create_time = peewee.BigIntegerField()

        class Meta:
            indexes = ((("caller_id", "method", "request_id"), True),)

    with db.bind_ctx([Reply]):
        db.create_tables([Reply])
