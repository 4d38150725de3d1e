"""Leases on a PostgreSQL server."""

from __future__ import annotations

from contextlib import closing

import psycopg
import pytest

from chassis.postgres import PostgresStore
from chassis.settings import DatabaseAddress
from tests.chassis.postgres.stores import open_store
from tests.people import until

pytestmark = pytest.mark.postgresql


async def test_a_lease_is_one_processs_and_lost_with_the_connection(
    store: PostgresStore, address: DatabaseAddress
) -> None:
    other = open_store(address)

    async def has_it() -> bool:
        return store.try_lease("work")

    async def other_has_one() -> bool:
        return other.try_lease("other work")

    try:
        await until(has_it)
        assert not other.try_lease("work")
        # What it asked for before, it was told of then.
        await until(other_has_one)
        assert not other.try_lease("work")
        assert other.is_leased("work")
        assert not other.is_leased("something else")
        with closing(psycopg.connect(address.url, autocommit=True)) as operator:
            operator.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND granted"
                " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
            )

        async def somebody_has_it() -> bool:
            return store.try_lease("work") != other.try_lease("work")

        # Whoever is faster.
        await until(somebody_has_it)
    finally:
        other.close()

    await until(has_it)
