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
    # Another number for each password; a stronger hash of the same one keeps it.
    password_version = peewee.IntegerField(default=0)
    first_name = peewee.TextField()
    last_name = peewee.TextField()
    bio = peewee.TextField()
    search_key = peewee.TextField()
    active = BooleanField()
    staff = BooleanField()
    superuser = BooleanField()
    create_time = peewee.BigIntegerField()
    update_time = peewee.BigIntegerField()


class Session(Table):
    """Where somebody is logged in: the family of refresh tokens that began with one login.

    Of a refresh token only hashes are kept: of the part that all tokens of the family share, and of the last one's own.
    """

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
    """Wrong passwords of late, of an account for instance: a bucket that leaks."""

    key = peewee.BlobField(primary_key=True)
    empty_time = peewee.BigIntegerField(index=True)
    open_time = peewee.BigIntegerField()


class SigningKey(Table):
    """A private key of Ed25519 that signs access tokens. It never leaves this service."""

    kid = peewee.TextField(primary_key=True)
    private_key = peewee.BlobField()
    sign_time = peewee.BigIntegerField()
