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
_STREAMS = "tests/chassis/test_streams.py::"
_DELETION = "tests/end_to_end/test_deletion.py::"
_LOGGED = "tests/end_to_end/test_events.py::test_each_change_is_told_once_in_the_log_of_its_service[together]"

_STEP = "            await self._store.write(_consume, self._name, position, batch, self._apply)\n"
_MOVE_AT_THE_END = "            offset = event.offset\n    _move(db, name, position, Position(batch.epoch, offset))\n"
_STEP_MOVES = (
    "            last = batch.events[-1].offset\n"
    "            await self._store.write(_move, self._name, position, Position(batch.epoch, last))\n"
)
_APPENDED = "        _append.run(db, time=clock.now(), payload=payload)\n"
_KEPT = "    _put.run(db, **key._asdict(), about_id=about_id, response=response.SerializeToString(), now=now)\n"

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
        [Edit("chassis/server.py", "await self._context.send_initial_metadata(())\n", "pass\n")],
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
        [Edit("chassis/consumer.py", "return position.epoch == batch.epoch and batch.floor", "return batch.floor")],
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
                '        Reply.caller_id == param("caller_id"),\n        Reply.method == param("method"),\n',
                '        Reply.method == param("method"),\n',
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
                "    kept = {'about_id': about_id, 'response': response.SerializeToString(), 'now': now}\n"
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
                "    if stored is not None:\n"
                "        return response_class.FromString(stored)\n"
                "    if tombstones",
                "    if tombstones",
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
                "    for post_id in deleted:\n        post_events.post_deleted(db, post_id, gone.id)\n",
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
]
