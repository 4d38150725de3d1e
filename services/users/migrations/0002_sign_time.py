"""A signing key signs from a time of its own on, not from its creation."""


def up(migrator, db):
    migrator.migrate(migrator.rename_column("signing_key", "create_time", "sign_time"))
