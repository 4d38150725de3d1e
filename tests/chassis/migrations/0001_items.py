"""Items and their tags."""

import peewee

from chassis.models import IdField, Table


def up(migrator, db):
    class Item(Table):
        id = IdField()
        name = peewee.TextField(unique=True)

    class Tag(Table):
        id = IdField()
        item = peewee.ForeignKeyField(Item)

    tables = [Item, Tag]
    with db.bind_ctx(tables):
        db.create_tables(tables)
