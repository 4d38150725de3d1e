"""Whom the answers to requests tell of."""

import peewee


def up(migrator, db):
    migrator.migrate(
        migrator.add_column("reply", "about_id", peewee.BigIntegerField(default=0)),
        migrator.add_index("reply", ("about_id",)),
    )
