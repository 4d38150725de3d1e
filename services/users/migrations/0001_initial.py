"""Accounts, signing keys and the secrets of the service."""

import peewee

from chassis.models import BooleanField, IdField, Table


def up(migrator, db):
    class User(Table):
        id = IdField()
        username = peewee.TextField()
        username_key = peewee.TextField(unique=True)
        email = peewee.TextField()
        email_key = peewee.TextField(unique=True)
        password_hash = peewee.BlobField()
        first_name = peewee.TextField()
        last_name = peewee.TextField()
        bio = peewee.TextField()
        search_key = peewee.TextField()
        active = BooleanField()
        staff = BooleanField()
        superuser = BooleanField()
        create_time = peewee.BigIntegerField()
        update_time = peewee.BigIntegerField()

    class SigningKey(Table):
        kid = peewee.TextField(primary_key=True)
        private_key = peewee.BlobField()
        create_time = peewee.BigIntegerField()

    class Secret(Table):
        name = peewee.TextField(primary_key=True)
        value = peewee.BlobField()

    tables = [User, SigningKey, Secret]
    with db.bind_ctx(tables):
        db.create_tables(tables)
