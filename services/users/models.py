"""Tables of the users service."""

from __future__ import annotations

import peewee

from chassis.models import BooleanField, IdField, Table


class User(Table):
    """An account. What is unique or found without regard to case is kept a second time, folded."""

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
    """A private key of Ed25519 that signs access tokens. It never leaves this service."""

    kid = peewee.TextField(primary_key=True)
    private_key = peewee.BlobField()
    sign_time = peewee.BigIntegerField()
