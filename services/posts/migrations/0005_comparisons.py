"""How often other services were compared with."""

import peewee


def up(migrator, db):
    # The version before this goes on writing rows without it.
    comparisons = peewee.BigIntegerField(constraints=[peewee.SQL("DEFAULT 0")])
    migrator.migrate(migrator.add_column("cursor", "comparisons", comparisons, allow_not_null=True))
