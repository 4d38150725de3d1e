"""What is gone, and up to where the event log is forgotten."""

import peewee

from chassis.models import BooleanField, Table


def up(migrator, db):
    class Tombstone(Table):
        kind = peewee.TextField()
        gone_id = peewee.BigIntegerField()
        erased = BooleanField(index=True)

        class Meta:
            primary_key = peewee.CompositeKey("kind", "gone_id")

    with db.bind_ctx([Tombstone]):
        db.create_tables([Tombstone])
    migrator.migrate(migrator.add_column("event_log", "floor_offset", peewee.BigIntegerField(default=0)))
