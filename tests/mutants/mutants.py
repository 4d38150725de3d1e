"""Seeded defects: small changes of the source, each of which breaks a promise and has to be caught by a test.

They are about what is worst to lose: nothing lost, nothing twice, nothing left behind.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple


class Edit(NamedTuple):
    """Text that stands in a file exactly once, and what takes its place."""

    file: str
    old: str
    new: str


class Mutant(NamedTuple):
    """A defect.

    Attributes:
        breaks: What is not true any more.
        tests: Those that have to catch it: at least one of them fails.
    """

    name: str
    breaks: str
    edits: Sequence[Edit]
    tests: Sequence[str]


def mutate(mutant: Mutant, tree: Path) -> None:
    """Change the source in a folder.

    Raises:
        LookupError: a text is not there, or more than once. The mutant has to be written anew.
    """
    for file, old, new in mutant.edits:
        path = tree / file
        source = path.read_text()
        if (count := source.count(old)) != 1:
            raise LookupError(f"{mutant.name}: its text is {count} times in {file}, not once:\n{old}")
        path.write_text(source.replace(old, new))


_DURABLE = "tests/chassis/test_power_loss.py::test_no_write_that_was_answered_is_lost_with_the_power"
_STORE = "tests/chassis/test_store.py::"
_CONSUMER = "tests/chassis/test_consumer.py::"
_REPLAY = "tests/chassis/test_replay.py::"
_STREAMS = "tests/chassis/streams/test_ends.py::"
_LIFE_OF_IMAGES = "tests/posts/media/test_life_cycle.py::test_what_is_shown_has_its_blobs_and_nothing_else_is_left"
_GONE_IMAGES = "tests/posts/media/test_collector.py::"
_STUDIO = "services/posts/media/studio.py"
_DISCARDS = "services/posts/media/discards.py"
_COLLECTOR = "services/posts/media/collector.py"
_RECORDS = "services/posts/media/records.py"
_DELETION = "tests/end_to_end/test_deletion.py::"
_LOGGED = "tests/end_to_end/test_events.py::test_each_change_is_told_once_in_the_log_of_its_service[together]"

_STEP = "            await self._store.write(_consume, self._name, position, batch, self._apply)\n"
_MOVE_AT_THE_END = "            offset = event.offset\n    _move(db, name, position, Position(batch.epoch, offset))\n"
_STEP_MOVES = (
    "            last = batch.events[-1].offset\n"
    "            await self._store.write(_move, self._name, position, Position(batch.epoch, last))\n"
)
_APPENDED = "        _append.run(db, time=clock.now(), payload=payload)\n"
_KEPT = "    _put.run(db, **key._asdict(), about_id=about_id, response=response.SerializeToString(), now=clock.now())\n"

MUTANTS = [
    # Nothing lost.
    Mutant(
        "synchronous-normal",
        "A write is on the disk before it is answered.",
        [Edit("chassis/sqlite.py", '"synchronous": "full"', '"synchronous": "normal"')],
        [_DURABLE],
    ),
    Mutant(
        "cut-off-is-whole",
        "A stream of requests that was cut off is not taken for a whole one.",
        [Edit("chassis/server.py", "await asyncio.shield(sending)\n", "pass\n")],
        [f"{_STREAMS}test_a_stream_of_requests_that_was_cut_off_is_never_taken_for_a_whole_one[remote]"],
    ),
    Mutant(
        "answer-before-commit",
        "A caller is answered after the commit.",
        [
            Edit(
                "chassis/sqlite.py",
                "        return _Answer(job, result, None, after)\n",
                "        answer = _Answer(job, result, None, after)\n        _send([answer])\n        return answer\n",
            )
        ],
        [_DURABLE, _STORE + "test_a_write_that_returned_is_seen_by_another_connection"],
    ),
    Mutant(
        "offset-before-effect",
        "The offset is stored in the transaction of the effects: here in one of its own before it.",
        [
            Edit("chassis/consumer.py", _STEP, _STEP_MOVES + _STEP),
            Edit("chassis/consumer.py", _MOVE_AT_THE_END, "            offset = event.offset\n"),
        ],
        [
            _CONSUMER + "test_each_event_takes_effect_exactly_once_and_in_order",
            _CONSUMER + "test_an_event_that_cannot_be_applied_undoes_the_batch_that_it_came_with",
        ],
    ),
    Mutant(
        "epoch-ignored",
        "A consumer compares where the log is another one now.",
        [
            Edit(
                "chassis/consumer.py",
                "    if not events.continues(position.epoch, position.offset, batch.epoch):\n        return False\n",
                "",
            )
        ],
        [_CONSUMER + "test_a_log_that_is_another_one_now_is_compared_with"],
    ),
    Mutant(
        "restore-keeps-epoch",
        "A restored log has another epoch, so that its readers compare.",
        [
            Edit(
                "suite/restore.py",
                "        if ROWS[name].appends:\n            store.write_now(events.renew)\n",
                "",
            )
        ],
        ["tests/suite/test_backup.py::test_a_restored_log_is_another_one_to_whoever_read_it"],
    ),
    Mutant(
        "account-deletion-untold",
        "The event of a deleted account is in the outbox.",
        [Edit("services/users/accounts.py", "    user_events.user_deleted(db, user_id)\n", "")],
        [_LOGGED],
    ),
    Mutant(
        "post-deletion-untold",
        "The event of a deleted post is in the outbox.",
        [Edit("services/posts/posts.py", "    post_events.post_deleted(db, post_id, post.author_id)\n", "")],
        [_LOGGED],
    ),
    Mutant(
        "like-untold",
        "The event of a like is in the outbox.",
        [Edit("services/social/likes.py", "        social_events.post_liked(db, post_id, user_id)\n", "")],
        [_LOGGED],
    ),
    Mutant(
        "event-after-commit",
        "An event is appended in the transaction of what it tells of: here in one of its own after it.",
        [
            Edit(
                "chassis/events.py",
                "from chassis.store import POSTGRESQL, Database, Store",
                "from chassis.store import POSTGRESQL, Database, Store, after_commit",
            ),
            Edit(
                "chassis/events.py",
                _APPENDED,
                "        after_commit(lambda: _append.run(db, time=clock.now(), payload=payload) and None)\n",
            ),
        ],
        ["tests/chassis/test_events.py::test_an_event_is_there_with_its_change_after_every_commit"],
    ),
    # Nothing twice.
    Mutant(
        "offset-after-effect",
        "The offset is stored in the transaction of the effects: here in one of its own after it.",
        [
            Edit("chassis/consumer.py", _STEP, _STEP + _STEP_MOVES),
            Edit("chassis/consumer.py", _MOVE_AT_THE_END, "            offset = event.offset\n"),
        ],
        [_CONSUMER + "test_each_event_takes_effect_exactly_once_and_in_order"],
    ),
    Mutant(
        "event-applied-twice",
        "An event that comes twice takes effect once.",
        [Edit("chassis/consumer.py", "if event.offset > offset:", "if event.offset:")],
        [_CONSUMER + "test_each_event_takes_effect_exactly_once_and_in_order"],
    ),
    Mutant(
        "lease-for-everybody",
        "One process at a time does the background work of a service.",
        [
            Edit(
                "chassis/sqlite.py",
                "LOCK_NB)\n        except BlockingIOError:\n            os.close(lease)\n            return False\n",
                "LOCK_NB)\n        except BlockingIOError:\n            pass\n",
            )
        ],
        ["tests/chassis/test_background.py::test_one_process_at_a_time_does_the_work"],
    ),
    Mutant(
        "replay-ignores-caller",
        "A retry gets the answer of its own caller only.",
        [
            Edit(
                "chassis/replay.py",
                '    Reply.caller_id == param("caller_id"),\n    Reply.method == param("method"),\n',
                '    Reply.method == param("method"),\n',
            )
        ],
        [_REPLAY + "test_the_same_id_of_another_caller_is_another_request"],
    ),
    Mutant(
        "replay-after-commit",
        "The answer to a retry is stored in the transaction of the effect: here in one of its own after it.",
        [
            Edit(
                "chassis/replay.py",
                "from chassis.store import Database, Store",
                "from chassis.store import Database, Store, after_commit",
            ),
            Edit(
                "chassis/replay.py",
                _KEPT,
                "    kept = {'about_id': about_id, 'response': response.SerializeToString(), 'now': clock.now()}\n"
                "    after_commit(lambda: _put.run(db, **key._asdict(), **kept) and None)\n",
            ),
        ],
        [_REPLAY + "test_an_answer_is_kept_with_its_effect_after_every_commit"],
    ),
    Mutant(
        "replay-looked-up-too-early",
        "Of two equal requests under way one makes the change: the lookup is in its transaction.",
        [
            Edit(
                "chassis/replay.py",
                "    stored = _find(db, key)\n"
                "    if stored is not None and not _is_too_old(stored):\n"
                "        return response_class.FromString(stored.response)\n"
                "    if tombstones",
                "    stored = None\n    if tombstones",
            )
        ],
        [
            "tests/chassis/test_replay.py::test_of_two_equal_requests_at_once_one_makes_the_change_and_both_get_its_answer"
        ],
    ),
    Mutant(
        "like-counted-twice",
        "A counter changes only if a row changed.",
        [
            Edit(
                "services/social/likes.py",
                "likes=1).like_count\n    return counters.of_post(db, post_id).like_count\n",
                "likes=1).like_count\n    return counters.change_post(db, post_id, likes=1).like_count\n",
            )
        ],
        ["tests/end_to_end/test_likes.py::test_a_second_like_by_the_same_person_changes_nothing[together]"],
    ),
    Mutant(
        "like-counted-after-commit",
        "A counter changes in the transaction of its row: here in one of its own after it.",
        [
            Edit(
                "services/social/likes.py",
                "from chassis.store import Database\n",
                "from chassis.store import Database, after_commit\n",
            ),
            Edit(
                "services/social/likes.py",
                "        return counters.change_post(db, post_id, likes=1).like_count\n",
                "        after_commit(lambda: counters.change_post(db, post_id, likes=1) and None)\n"
                "        return counters.of_post(db, post_id).like_count + 1\n",
            ),
        ],
        ["tests/social/test_counters.py::test_counters_equal_the_rows_after_every_commit"],
    ),
    # Nothing left behind.
    Mutant(
        "late-like",
        "A like of a post that was deleted meanwhile is refused: its tombstone is looked up.",
        [Edit("services/social/likes.py", "    erasure.refuse_gone_post(db, post_id)\n", "")],
        ["tests/social/test_tombstones.py::test_what_comes_after_a_deletion_is_refused_and_leaves_nothing[like]"],
    ),
    Mutant(
        "late-answer-kept",
        "Nothing is done or kept for a caller who was deleted meanwhile.",
        [Edit("chassis/replay.py", "if tombstones.get(db, USER, key.caller_id):", "if key.caller_id < 0:")],
        [_REPLAY + "test_nothing_is_done_or_kept_for_a_caller_who_is_gone"],
    ),
    Mutant(
        "erased-posts-untold",
        "The posts of a deleted account are told of, so that their likes go, too.",
        [
            Edit(
                "services/posts/erasure.py",
                "    for post_id in deleted:\n        post_events.post_deleted(db, post_id, author_id)\n",
                "",
            )
        ],
        [_DELETION + "test_an_erasure_is_complete_when_nothing_is_left_of_the_posts_either[together]"],
    ),
    Mutant(
        "answers-not-erased",
        "The answers that were kept for a deleted account are erased.",
        [Edit("services/social/erasure.py", "if forgotten := replay.forget_some(db, user_id):", "if forgotten := 0:")],
        [_DELETION + "test_no_answer_is_kept_for_or_about_who_was_deleted[together]"],
    ),
    Mutant(
        "savepoint-kept",
        "What raises undoes its own changes.",
        [Edit("chassis/sqlite.py", '            self._db.execute_sql("ROLLBACK TO job")\n', "")],
        [_STORE + "test_a_write_that_fails_is_undone_and_the_others_of_its_transaction_are_not"],
    ),
    Mutant(
        "write-after-deadline",
        "A change does not begin after the deadline of its call.",
        [
            Edit(
                "chassis/sqlite.py",
                "return self.future.cancelled() or time.monotonic() >= self.deadline",
                "return self.future.cancelled()",
            )
        ],
        [_STORE + "test_a_write_whose_deadline_passed_before_it_began_does_nothing"],
    ),
    Mutant(
        "write-after-cancellation",
        "A change does not begin after its call was cancelled.",
        [
            Edit(
                "chassis/sqlite.py",
                "return self.future.cancelled() or time.monotonic() >= self.deadline",
                "return time.monotonic() >= self.deadline",
            )
        ],
        [_STORE + "test_a_write_that_was_cancelled_before_it_began_does_nothing"],
    ),
    # Images.
    Mutant(
        "image-of-what-is-deleted",
        "No image is made of a folder that is being deleted.",
        [
            Edit(
                _DISCARDS,
                'Discard.delete().where(Discard.folder == param("folder"), Discard.begun == param("no"))',
                'Discard.delete().where(Discard.folder == param("folder"), Discard.begun >= param("no"))',
            )
        ],
        [_GONE_IMAGES + "test_no_image_is_made_of_a_folder_whose_deletion_has_begun"],
    ),
    Mutant(
        "deleted-before-begun",
        "It is written down that a folder is being deleted, before it is.",
        [Edit(_DISCARDS, "Discard.update(begun=True, ", "Discard.update(begun=False, ")],
        [_GONE_IMAGES + "test_no_image_is_made_of_a_folder_whose_deletion_has_begun"],
    ),
    Mutant(
        "image-given-up",
        "Nobody gives an image up that was made though nobody was told.",
        [Edit(_DISCARDS, "    if not _is_referred_to.all(db, folder=folder):\n", "    if folder:\n")],
        [_LIFE_OF_IMAGES],
    ),
    Mutant(
        "stored-before-held",
        "A folder is held before it is written to.",
        [Edit(_RECORDS, "    discards.hold(db, folder, owner_id, clock.now() + KEPT_MICROS)\n", "")],
        [_LIFE_OF_IMAGES],
    ),
    Mutant(
        "late-blobs",
        "What arrives after its folder was deleted is deleted, too.",
        [Edit(_DISCARDS, "open_until=clock.now() + OPEN_MICROS", "open_until=0")],
        [_LIFE_OF_IMAGES],
    ),
    Mutant(
        "blobs-not-tried-again",
        "What could not be deleted is tried again.",
        [
            Edit(
                _COLLECTOR,
                "            try:\n                await blobs.delete(folder)\n",
                "            deleted.append(folder)\n            try:\n                await blobs.delete(folder)\n",
            )
        ],
        [_LIFE_OF_IMAGES],
    ),
    Mutant(
        "uploads-not-forgotten",
        "An upload is forgotten with its file.",
        [Edit(_COLLECTOR, "        direct_uploads.forget(db, folder)\n", "        pass\n")],
        [_LIFE_OF_IMAGES],
    ),
    Mutant(
        "upload-finished-twice",
        "One image is made of an upload.",
        [Edit("services/posts/media/direct_uploads.py", "    _delete.run(db, folder=started.folder)\n", "")],
        [_LIFE_OF_IMAGES],
    ),
    Mutant(
        "one-folder-holds-up-others",
        "A folder that cannot be deleted holds up no other.",
        [
            Edit(
                _COLLECTOR,
                "                failed = failure\n",
                "                failed = failure\n                break\n",
            )
        ],
        [_GONE_IMAGES + "test_a_folder_that_cannot_be_deleted_holds_up_no_other_and_is_tried_again"],
    ),
    Mutant(
        "cancelled-uploads-take-room",
        "An upload that was cancelled takes no room.",
        [Edit(_STUDIO, "        except BaseException as failure:\n", "        except Exception as failure:\n")],
        [_GONE_IMAGES + "test_an_upload_that_fails_takes_no_room_and_its_blobs_go_soon"],
    ),
    Mutant(
        "doubled-uploads-take-room",
        "Of a request that comes twice at once the second file goes soon.",
        [Edit(_STUDIO, "        if not added:\n", "        if not result:\n")],
        [_GONE_IMAGES + "test_one_request_that_comes_twice_at_once_leaves_one_image"],
    ),
    Mutant(
        "images-of-posts",
        "A post takes its images with it.",
        [Edit("services/posts/posts.py", "    records.delete_of_posts(db, [post_id])\n", "")],
        [_LIFE_OF_IMAGES],
    ),
    Mutant(
        "images-of-erased-posts",
        "An account takes the images of its posts with it.",
        [
            Edit(
                "services/posts/erasure.py",
                "or _erase_media(db, gone.id) or",
                "or",
            )
        ],
        [_LIFE_OF_IMAGES],
    ),
    Mutant(
        "avatars-not-erased",
        "An account takes its avatar with it.",
        [
            Edit(
                _RECORDS,
                '_some_of_owner = Media.select(Media.id).where(Media.owner_id == param("owner_id"))',
                "_some_of_owner = Media.select(Media.id).where(\n"
                '    Media.owner_id == param("owner_id"), Media.avatar_of.is_null()\n)',
            )
        ],
        [_LIFE_OF_IMAGES],
    ),
    Mutant(
        "blobs-of-expired",
        "What nothing showed for a day takes its blobs with it.",
        [
            Edit(
                _RECORDS,
                "    for folder, owner_id in expired:\n        discards.add(db, folder, owner_id)\n",
                "",
            )
        ],
        [_LIFE_OF_IMAGES],
    ),
    Mutant(
        "hidden-for-all",
        "What nothing shows is seen by its owner alone.",
        [
            Edit(
                _RECORDS,
                "if found is None or not (found.shown or found.owner_id == viewer_id):",
                "if found is None:",
            )
        ],
        [_LIFE_OF_IMAGES],
    ),
]
