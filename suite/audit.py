"""`insta audit`: compares what all services have stored, and mends it."""

from __future__ import annotations

import asyncio
import dataclasses
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace

import click
import peewee
from rich import box
from rich.console import Console
from rich.table import Table

from chassis import background, consumer, events, tombstones
from chassis.consistency import BOTTOM, CounterColumn, Reference
from chassis.settings import Settings
from chassis.store import POSTGRESQL, Database, Store
from services.posts import audit as posts
from services.social import audit as social
from services.users import audit as users
from suite.audit_images import ImageChecks
from suite.checks import Check, Page, in_parts, parts, record
from suite.composition import GATEWAY, SERVICES, Assembly
from suite.databases import open_store, path_of
from suite.images import place_of, store_of_images
from suite.serving import data_lock, together

ROWS = {"users": users.ROWS, "posts": posts.ROWS, "social": social.ROWS}
# Which service knows whether something exists.
_OWNERS = {kind: name for name, rows in ROWS.items() for kind in rows.missing}
_SHOWN = 5
_PAUSE_SECONDS = 0.05
# A running suite does something within this time: a consumer that has to compare hears so when its question for events
# is answered.
_STANDSTILL_SECONDS = consumer.WAIT_SECONDS + 2.0


@dataclass(frozen=True)
class Result:
    """What a check found."""

    check: Check
    count: int
    differing: Sequence[int | str]


@click.command(short_help="Compare what the services have stored with each other.")
@click.option(
    "--repair",
    is_flag=True,
    help="Mend what differs: count anew, erase what refers to nothing, delete images that are unknown.",
)
@click.option(
    "--wait",
    type=click.FloatRange(0),
    metavar="SECONDS",
    default=60.0,
    show_default=True,
    help="How long what is under way may take to arrive everywhere.",
)
@click.pass_obj
def audit(settings: Settings, repair: bool, wait: float) -> None:
    """Compare what the services have stored with each other: counters with rows, rows with the users and posts that
    they refer to, what is gone with what is left of it, images with the store of their blobs, how far the event logs
    were read, and the files themselves.

    Works on the databases and the images in INSTA_MEDIA_URL, whether the suite runs on them or not. What differs
    because it is under way is waited for. Fails if anything differs; with --repair, if anything differs then.
    """
    in_files = ROWS.keys() - settings.database_addresses.keys()
    missing = sorted(name for name in in_files if not path_of(settings, SERVICES[name]).exists())
    if missing:
        raise click.ClickException(
            f"there is no {missing[0]} database in {settings.data}. Set INSTA_DATA to the folder of all three."
        )
    with ExitStack() as opened:
        stores = {}
        for name in ROWS:
            stores[name] = open_store(settings, SERVICES[name])
            opened.callback(stores[name].close)
        place = place_of(settings)
        blobs = opened.enter_context(store_of_images(settings))
        results = _audit(stores, ImageChecks(stores["posts"], blobs, place), wait)
        _print(results)
        if repair and _differs(results):
            if any(result.differing for result in results if result.check.name == _INTEGRITY):
                raise click.ClickException(
                    "a damaged file cannot be mended: put a backup in its place (insta restore)."
                )
            # First of all, so that nothing is erased that has a tombstone by mistake.
            _repair(results)
            with _at_work(settings, stores):
                for _ in ROWS:
                    # What one service erases, others hear of afterwards.
                    Arrivals(stores).wait(wait)
                results = _audit(stores, ImageChecks(stores["posts"], blobs, place), wait)
            click.echo("\nAfter the repair:")
            _print(results)
    if _differs(results):
        sys.exit(1)


def _audit(stores: Mapping[str, Store], images: ImageChecks, wait: float) -> list[Result]:
    """Run all checks. What is found at first counts if it is still there once the events until then have arrived."""
    arrivals = Arrivals(stores)
    results = [_scan(_integrity_check(name, store)) for name, store in stores.items() if store.read_now(_is_file)]
    if _differs(results):
        # What is read of a damaged file means nothing.
        return results
    results += [_scan(check) for check in (*_checks(stores, arrivals), *images.checks())]
    if _differs(results):
        arrivals.wait(wait)
    return [
        replace(result, differing=result.check.remaining(result.differing)) if result.differing else result
        for result in results
    ]


def _scan(check: Check) -> Result:
    count = 0
    suspicious: list[int | str] = []
    above: int | None = BOTTOM
    while above is not None:
        page = check.page(above)
        count += page.size
        suspicious += page.suspicious
        above = page.above
    return Result(check, count, suspicious)


class Arrivals:
    """What is under way from one service to another, and what is about to be erased."""

    def __init__(self, stores: Mapping[str, Store]) -> None:
        self._stores = stores
        self._heads: dict[str, events.State] = {}

    def behind(self, reader: str, log: str) -> str:
        """What a service has still to read of a log, as the log is, or was when waiting for it began."""
        position = self._stores[reader].read_now(consumer.position_of, log)
        now = self._stores[log].read_now(events.state)
        until = self._heads.get(log, now)
        if position != ("", 0) or now.floor_offset:
            if not events.continues(position.epoch, position.offset, now.epoch):
                return "the log is another one now"
            if not now.floor_offset <= position.offset <= now.head_offset:
                return f"read to {position.offset}, and there are events from {now.floor_offset} to {now.head_offset}"
        waiting = self._stores[log].read_now(events.between, position.offset, until.head_offset)
        return f"{waiting:,} events wait" if waiting else ""

    def wait(self, seconds: float) -> None:
        """Wait until everybody has read every log as far as it goes now, and has erased what was gone then.

        Ends as well when nobody is at work, when nothing happens any more, or after some time.
        """
        self._heads = {name: self._stores[name].read_now(events.state) for name, rows in ROWS.items() if rows.appends}
        end = time.monotonic() + seconds
        if self._wait_until(self._all_read, end):
            pending = {name: set(store.read_now(tombstones.unfinished)) for name, store in self._stores.items()}
            self._wait_until(
                lambda: (
                    not any(
                        pending[name] & set(store.read_now(tombstones.unfinished))
                        for name, store in self._stores.items()
                    )
                ),
                end,
            )

    def _all_read(self) -> bool:
        return not any(self.behind(name, log) for name, rows in ROWS.items() for log in rows.reads)

    def _wait_until(self, condition: Callable[[], bool], end: float) -> bool:
        versions, moved_at = self._versions(), time.monotonic()
        while not condition():
            now = time.monotonic()
            if self._versions() != versions:
                versions, moved_at = self._versions(), now
            if now >= end or now - moved_at >= _STANDSTILL_SECONDS or not _somebody_at_work(self._stores):
                return False
            time.sleep(_PAUSE_SECONDS)
        return True

    def _versions(self) -> list[int]:
        """Numbers that change with each commit of anybody else."""
        return [store.read_now(_data_version) for store in self._stores.values()]


def _checks(stores: Mapping[str, Store], arrivals: Arrivals) -> Iterator[Check]:
    for name, rows in ROWS.items():
        for counter in rows.counters:
            yield _counter_check(name, stores[name], counter)
        for reference in rows.references:
            yield _reference_check(name, stores, reference, arrivals)
        for kind in sorted({column.kind for column in (*rows.references, *rows.traces)}):
            yield from _tombstone_checks(name, stores, kind)
        for log in rows.reads:
            yield _log_check(name, log, arrivals)


def _counter_check(service: str, store: Store, counter: CounterColumn) -> Check:
    def page(above: int) -> Page:
        return Page(*store.read_now(counter.compare, above))

    def mend(ids: Sequence[int]) -> None:
        store.write_now(_recount, service, counter, ids)

    return Check(
        service, counter.name, page, lambda ids: in_parts(ids, lambda part: store.read_now(counter.wrong, part)), mend
    )


def _reference_check(service: str, stores: Mapping[str, Store], reference: Reference, arrivals: Arrivals) -> Check:
    kind, store, owner = reference.kind, stores[service], _OWNERS[reference.kind]

    def orphans(ids: Sequence[int]) -> list[int]:
        missing = stores[owner].read_now(ROWS[owner].missing[kind], ids)
        # What is known to be gone is a matter of its tombstone.
        known = {gone.id for gone in store.read_now(tombstones.among_ids, kind, missing)}
        return sorted(set(missing) - known)

    def page(above: int) -> Page:
        ids = store.read_now(reference.above, above)
        return Page(len(ids), orphans(ids), ids[-1] if ids else None)

    def remaining(ids: Sequence[int]) -> Sequence[int]:
        if service != owner and arrivals.behind(service, owner):
            # Not known yet: the event may be among those that are still to be read.
            return []
        return in_parts(ids, lambda part: orphans(store.read_now(reference.among, part)))

    def mend(ids: Sequence[int]) -> None:
        store.write_now(_bury, service, kind, ids)

    return Check(service, f"{reference.name}: {kind} does not exist", page, remaining, mend)


def _tombstone_checks(service: str, stores: Mapping[str, Store], kind: str) -> Iterator[Check]:
    store, owner = stores[service], _OWNERS[kind]

    def missing(ids: Sequence[int]) -> list[int]:
        return stores[owner].read_now(ROWS[owner].missing[kind], ids)

    def left(gone: Sequence[tombstones.Gone]) -> list[int]:
        ids = store.read_now(ROWS[service].left_among, kind, [one.id for one in gone if one.erased])
        # What exists has a tombstone by mistake: its rows are to stay.
        return sorted(missing(ids))

    def pages(differing: Callable[[Sequence[tombstones.Gone]], list[int]]) -> Callable[[int], Page]:
        def page(above: int) -> Page:
            gone = store.read_now(tombstones.above, kind, above)
            return Page(len(gone), differing(gone), gone[-1].id if gone else None)

        return page

    def again(differing: Callable[[Sequence[tombstones.Gone]], list[int]]) -> Callable[[Sequence[int]], Sequence[int]]:
        return lambda ids: in_parts(ids, lambda part: differing(store.read_now(tombstones.among_ids, kind, part)))

    def existing(gone: Sequence[tombstones.Gone]) -> list[int]:
        ids = [one.id for one in gone]
        return sorted(set(ids) - set(missing(ids)))

    def pending(gone: Sequence[tombstones.Gone]) -> list[int]:
        return [one.id for one in gone if not one.erased]

    def bury(ids: Sequence[int]) -> None:
        store.write_now(_bury, service, kind, ids)

    def revive(ids: Sequence[int]) -> None:
        store.write_now(_revive, service, kind, ids)
        # Somebody may have deleted one meanwhile.
        if gone := missing(ids):
            bury(gone)

    yield Check(service, f"{kind} gone and erased: rows left", pages(left), again(left), bury)
    yield Check(service, f"{kind} gone: still exists", pages(existing), again(existing), revive)
    yield Check(service, f"{kind} gone: still to be erased", pages(pending), again(pending))


def _log_check(service: str, log: str, arrivals: Arrivals) -> Check:
    def found(_: object = None) -> list[str]:
        behind = arrivals.behind(service, log)
        return [behind] if behind else []

    return Check(service, f"log of {log}: read to its head", lambda above: Page(1, found(), None), found)


_INTEGRITY = "integrity_check, foreign_key_check"


def _integrity_check(service: str, store: Store) -> Check:
    return Check(service, _INTEGRITY, lambda above: Page(1, store.read_now(_damage), None), lambda damage: damage)


def _somebody_at_work(stores: Mapping[str, Store]) -> bool:
    return any(store.is_leased(background.ERASURE) for store in stores.values())


@contextmanager
def _at_work(settings: Settings, stores: Mapping[str, Store]) -> Iterator[None]:
    """Have what goes on beside the calls of a suite go on: here, if the suite does not run."""
    with ExitStack() as held:
        if not _hold(held, settings):
            # It does run, and does the work itself.
            yield
            return
        stopping = threading.Event()
        thread = held.enter_context(ThreadPoolExecutor(1))
        working = thread.submit(asyncio.run, _work(settings, stopping))
        try:
            # Each task begins with its lease, which a server takes a moment to give.
            end = time.monotonic() + _STANDSTILL_SECONDS
            while not _somebody_at_work(stores) and not working.done() and time.monotonic() < end:
                time.sleep(_PAUSE_SECONDS)
            yield
        finally:
            stopping.set()
        working.result()


def _hold(held: ExitStack, settings: Settings) -> bool:
    """Keep a suite from starting on the databases. False: one runs."""
    try:
        for name in ROWS:
            held.enter_context(data_lock(settings, SERVICES[name]))
    except click.ClickException:
        held.pop_all().close()
        return False
    return True


async def _work(settings: Settings, stopping: threading.Event) -> None:
    # What is recorded are calls, and none comes in.
    assembly = Assembly(dataclasses.replace(settings, trace_ratio=0.0), together(), GATEWAY)
    try:
        assembly.begin()
        await asyncio.to_thread(stopping.wait)
    finally:
        await assembly.close()


def _repair(results: Iterable[Result]) -> None:
    for result in results:
        mend = result.check.mend
        if mend:
            for part in parts(result.differing):
                mend(part)


# Each of these is one write, and leaves its line in the audit log when it is committed.


def _recount(db: Database, service: str, counter: CounterColumn, ids: Sequence[int]) -> None:
    counter.recount(db, ids)
    record("counters counted anew", service, counter.name, len(ids))


def _bury(db: Database, service: str, kind: str, ids: Sequence[int]) -> None:
    ROWS[service].bury(db, kind, ids)
    record("rows left to erasure", service, kind, len(ids))


def _revive(db: Database, service: str, kind: str, ids: Sequence[int]) -> None:
    tombstones.drop(db, kind, ids)
    record("tombstones removed", service, kind, len(ids))


def _is_file(db: Database) -> bool:
    """Whether a database is a file of SQLite's. PostgreSQL looks after its own (pg_amcheck)."""
    return db.dialect != POSTGRESQL


def _damage(db: Database) -> list[str]:
    """What SQLite itself finds wrong with a file."""
    try:
        said = [str(row[0]) for row in db.execute_sql("PRAGMA integrity_check").fetchall()]
        dangling = db.execute_sql("PRAGMA foreign_key_check").fetchall()
    except peewee.DatabaseError as failure:
        return [str(failure)]
    return [line for line in said if line != "ok"] + [f"{row[0]}: row {row[1]} refers to nothing" for row in dangling]


def _data_version(db: Database) -> int:
    # Transactions of other databases of a server count, too: then a standstill is noticed later.
    number = (
        "SELECT pg_snapshot_xmax(pg_current_snapshot())::text" if db.dialect == POSTGRESQL else "PRAGMA data_version"
    )
    return int(db.execute_sql(number).fetchall()[0][0])


def _differs(results: Iterable[Result]) -> bool:
    return any(result.differing for result in results)


def _print(results: Sequence[Result]) -> None:
    table = Table(box=box.SIMPLE)
    table.add_column("service")
    table.add_column("check", overflow="fold")
    table.add_column("compared", justify="right")
    table.add_column("differences", justify="right")
    for result in results:
        colour = "red" if result.differing else "green"
        table.add_row(
            result.check.service, result.check.name, f"{result.count:,}", f"[{colour}]{len(result.differing):,}"
        )
    Console().print(table)
    for result in results:
        if result.differing:
            some = ", ".join(map(str, result.differing[:_SHOWN]))
            more = f" and {len(result.differing) - _SHOWN:,} more" if len(result.differing) > _SHOWN else ""
            click.echo(f"{result.check.service}: {result.check.name}: {some}{more}")
            if result.check.advice is not None:
                click.echo(result.check.advice())
