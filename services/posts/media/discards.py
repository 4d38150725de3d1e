"""Folders of blobs that are to be deleted from the store: what nothing refers to, not yet or no longer.

A folder is among them from before its first blob is written until the transaction in which something begins to refer to
it, and from the transaction on in which nothing does any more. So whatever happens in between, each folder in the
store is referred to or is here: none is lost, and none is deleted that something refers to.

Who was given up on may write all the same: a thread that cannot be ended, a request that is on its way, a form that is
good for some time. So a folder that was held stays here for as long as that takes at most, and is then deleted again.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import peewee

from chassis import clock
from chassis.query import compiled, param
from chassis.store import Database
from services.posts.models import Discard, Media

# What is written to a folder is there so long after it was held, or never. A form for uploads is good for half of that.
OPEN_MICROS = 2 * 3600 * 1_000_000
_NOBODY = 0

_put = compiled(
    Discard.insert(
        folder=param("folder"),
        owner_id=param("owner_id"),
        due_time=param("due_time"),
        begun=False,
        open_until=param("open_until"),
    ).on_conflict(conflict_target=[Discard.folder], preserve=[Discard.due_time])
)
_put_new = compiled(
    Discard.insert(folder=param("folder"), owner_id=param("owner_id"), due_time=param("now"), begun=False).on_conflict(
        action="nothing", conflict_target=[Discard.folder]
    )
)
_take_out = compiled(Discard.delete().where(Discard.folder == param("folder"), Discard.begun == param("no")))
_is_referred_to = compiled(Media.select(Media.id).where(Media.folder == param("folder")))
_some_due = Discard.select(Discard.folder).where(Discard.due_time <= param("now")).limit(param("limit"))
_due = compiled(_some_due)
_begin = compiled(
    Discard.update(begun=True, due_time=param("again")).where(Discard.folder.in_(_some_due)).returning(Discard.folder)
)
_delete_closed = compiled(
    Discard.delete().where(Discard.folder == param("folder"), Discard.open_until <= param("since"))
)
_delete_again = compiled(
    Discard.update(owner_id=param("nobody"), due_time=Discard.open_until).where(Discard.folder == param("folder"))
)
_hasten = compiled(
    Discard.update(due_time=param("now")).where(Discard.owner_id == param("owner_id"), Discard.due_time > param("now"))
)
_count_held = compiled(
    Discard.select(peewee.fn.count(Discard.folder)).where(
        Discard.owner_id == param("owner_id"), Discard.due_time > param("now"), Discard.begun == param("no")
    )
)
_count_of = compiled(Discard.select(peewee.fn.count(Discard.folder)).where(Discard.owner_id == param("owner_id")))


def hold(db: Database, folder: str, owner_id: int, due_time: int) -> None:
    """Let a folder be written to: it is deleted at a time (microseconds since 1970), unless it is taken out before."""
    _put.run(db, folder=folder, owner_id=owner_id, due_time=due_time, open_until=clock.now() + OPEN_MICROS)


def add(db: Database, folder: str, owner_id: int) -> None:
    """Let a folder be deleted as soon as can be."""
    _put.run(db, folder=folder, owner_id=owner_id, due_time=clock.now(), open_until=0)


def add_new(db: Database, folder: str) -> bool:
    """Let a folder be deleted as soon as can be, unless it is among the discards: then it stays as it is there, and the
    answer is False."""
    return _put_new.run(db, folder=folder, owner_id=_NOBODY, now=clock.now()) > 0


def give_up(db: Database, folder: str, owner_id: int) -> None:
    """Nothing is made of a folder that was held. One that something refers to by now is left alone."""
    if not _is_referred_to.all(db, folder=folder):
        # Also if it is here no longer: it was deleted, and may have been written to since.
        add(db, folder, owner_id)


def take_out(db: Database, folder: str) -> bool:
    """Something refers to a folder from this transaction on. False: too late, it is being deleted."""
    return _take_out.run(db, folder=folder, no=False) > 0


def any_due(db: Database, now: int) -> bool:
    """Whether there is something to delete."""
    return bool(_due.all(db, now=now, limit=1))


def begin_due(db: Database, now: int, again: int, limit: int) -> Sequence[str]:
    """Begin to delete some folders that are due. They are due again at a time at which that is tried anew."""
    return [row[0] for row in _begin.all(db, now=now, again=again, limit=limit)]


def finish(db: Database, folders: Iterable[str], since: int) -> None:
    """These were deleted, at a time or later. Those that might be written to still are nobody's, and deleted again."""
    for folder in folders:
        if not _delete_closed.run(db, folder=folder, since=since):
            _delete_again.run(db, folder=folder, nobody=_NOBODY)


def hasten(db: Database, owner_id: int) -> None:
    """Let all that is held for somebody be deleted as soon as can be."""
    _hasten.run(db, owner_id=owner_id, now=clock.now())


def count_held(db: Database, owner_id: int) -> int:
    """How many folders are held for somebody, to be made an image of."""
    count: int = _count_held.all(db, owner_id=owner_id, now=clock.now(), no=False)[0][0]
    return count


def count_of(db: Database, owner_id: int) -> int:
    """How many folders of somebody are still to be deleted, or held."""
    count: int = _count_of.all(db, owner_id=owner_id)[0][0]
    return count
