"""Leases on a PostgreSQL server."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from contextlib import closing
from functools import partial

import psycopg
import pytest

from chassis.postgres import PostgresStore
from chassis.settings import DatabaseAddress
from tests import networks, postgres_server
from tests.chassis.postgres.stores import open_store
from tests.people import until

pytestmark = pytest.mark.postgresql
# Has a lease until it is ended.
HOLDER = """
import sys, time
from chassis.settings import DatabaseAddress
from tests.chassis.postgres.stores import open_store

store = open_store(DatabaseAddress(sys.argv[1]))
while not store.try_lease("work"):
    time.sleep(0.01)
print("has it", flush=True)
sys.stdin.read()
"""


async def can_take(store: PostgresStore) -> bool:
    return store.try_lease("work")


async def test_a_lease_is_one_processs_and_lost_with_the_connection(
    store: PostgresStore, address: DatabaseAddress
) -> None:
    other = open_store(address)

    async def other_has_one() -> bool:
        return other.try_lease("other work")

    try:
        await until(partial(can_take, store))
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

    await until(partial(can_take, store))


def test_the_leases_of_a_machine_that_vanished_are_soon_free() -> None:
    with networks.machine() as machine:
        settings = {"listen_addresses": f"127.0.0.1, {networks.HERE}"}
        with postgres_server.running(settings=settings) as server:
            with (server.folder / "data" / "pg_hba.conf").open("a") as admitted:
                admitted.write(f"host all all {networks.NETWORK} scram-sha-256\n")
            server.run("SELECT pg_reload_conf()")
            address = server.database("items")
            command = [*machine.prefix, sys.executable, "-c", HOLDER, address.replace("127.0.0.1", networks.HERE)]
            with (
                subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder,
                closing(open_store(DatabaseAddress(address))) as store,
            ):
                assert holder.stdout is not None
                assert holder.stdout.readline() == "has it\n"
                assert not store.try_lease("work")

                machine.vanish()

                # The server waits for some 11 seconds before it believes that.
                asyncio.run(until(partial(can_take, store), seconds=30))
                holder.kill()
