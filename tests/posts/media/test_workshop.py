"""Images in processes of their own: what a workshop answers, and what becomes of its processes."""

from __future__ import annotations

import asyncio
import functools
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from PIL import Image

from services.posts.media import wire
from services.posts.media.images import Processed, process
from services.posts.media.refusal import ImageRefused, Reason
from services.posts.media.workshop import Workshop, WorkshopBusy, WorkshopFailed
from tests.posts.media.drawing import CONTENT_TYPES, FORMATS, encoded, picture

_ROOT = Path(__file__).parents[3]
_SMALL = encoded(picture(64, 48), "JPEG")
_JPEG = CONTENT_TYPES["JPEG"]


@functools.cache
def _largest() -> bytes:
    """As many pixels as are taken, of the kind that needs the most memory. Processing it takes most of a second."""
    return encoded(Image.new("RGBA", (5000, 5000), (200, 30, 30, 128)), "WEBP", method=0, quality=1)


def _children(of: int) -> set[int]:
    """The processes that another has started and not waited for, those that ended among them."""
    return {pid for pid in map(int, filter(str.isdigit, os.listdir("/proc"))) if _stat(pid)[1:2] == [str(of)]}


def _stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat from the state on; none if there is no such process."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return []


def _has_ended(pid: int) -> bool:
    """Also if nobody has waited for it."""
    stat = _stat(pid)
    return not stat or stat[0] == "Z"


def _read(pid: int, name: str) -> str:
    return Path(f"/proc/{pid}/{name}").read_text()


def _status(pid: int, field: str) -> str:
    """Memory in kB, sets of signals in hexadecimal."""
    (line,) = (line for line in _read(pid, "status").splitlines() if line.startswith(f"{field}:"))
    return line.split()[1]


def _is_decoding_the_largest(pid: int) -> bool:
    return int(_status(pid, "VmRSS")) > 100_000


async def _until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not holds():  # noqa: ASYNC110 (nobody tells what another process does)
            await asyncio.sleep(0.002)


@pytest.fixture
def workers() -> Iterator[Callable[[], set[int]]]:
    """The processes of the workshops of a test. None is left after it."""
    own = os.getpid()
    before = _children(own)
    yield lambda: _children(own) - before
    assert _children(own) <= before


@asynccontextmanager
async def _open(workshop: Workshop) -> AsyncIterator[Workshop]:
    try:
        yield workshop
    finally:
        workshop.close()


@asynccontextmanager
async def _stopped(workshop: Workshop, workers: Callable[[], set[int]]) -> AsyncIterator[int]:
    """The process of a workshop, once it has processed an image; it does nothing until it is told to go on."""
    await workshop.process(_SMALL, _JPEG)
    (pid,) = workers()
    os.kill(pid, signal.SIGSTOP)
    try:
        yield pid
    finally:
        if not _has_ended(pid):
            os.kill(pid, signal.SIGCONT)


def _begin(workshop: Workshop) -> asyncio.Task[Processed]:
    return asyncio.create_task(workshop.process(_SMALL, _JPEG))


async def test_images_become_what_they_become_without_a_workshop() -> None:
    transparent = picture(700, 400).convert("RGBA")
    transparent.putalpha(120)
    images = [(encoded(picture(700, 400), name), CONTENT_TYPES[name]) for name in FORMATS]
    images.append((encoded(transparent, "PNG"), CONTENT_TYPES["PNG"]))
    async with _open(Workshop()) as workshop:
        for data, declared in images:
            assert await workshop.process(data, declared) == process(data, declared)


@pytest.mark.parametrize(
    ("data", "declared"),
    [
        (b"", _JPEG),
        (b"%PDF-1.7", _JPEG),
        (_SMALL, "image/png"),
        (_SMALL, "image/\ud800" + "x" * 10_000),
        (_SMALL[:-200], _JPEG),
        (encoded(Image.new("1", (9000, 9000)), "PNG"), "image/png"),
    ],
    ids=["empty", "unknown", "another", "undeclarable", "incomplete", "bomb"],
)
async def test_refusals_come_with_reason_and_text_and_end_no_process(
    workers: Callable[[], set[int]], data: bytes, declared: str
) -> None:
    with pytest.raises(ImageRefused) as expected:
        process(data, declared)
    async with _open(Workshop()) as workshop:
        await workshop.process(_SMALL, _JPEG)
        before = workers()

        with pytest.raises(ImageRefused) as caught:
            await workshop.process(data, declared)

        assert (caught.value.reason, caught.value.text) == (expected.value.reason, expected.value.text)
        assert type(caught.value.reason) is Reason
        await workshop.process(_SMALL, _JPEG)
        assert workers() == before


async def test_the_largest_image_is_taken_and_takes_nothing_from_the_event_loop(
    workers: Callable[[], set[int]],
) -> None:
    data = _largest()
    async with _open(Workshop()) as workshop:
        await workshop.process(_SMALL, _JPEG)
        (pid,) = workers()
        own, others, turns = time.process_time(), _cpu_seconds(pid), 0
        processing = asyncio.create_task(workshop.process(data, "image/webp"))
        while not processing.done():
            await asyncio.sleep(0.01)
            turns += 1
        own, others = time.process_time() - own, _cpu_seconds(pid) - others

        assert (await processing).width == 5000
    assert own < others / 4
    assert turns > 10


def _cpu_seconds(pid: int) -> float:
    return (int(_stat(pid)[11]) + int(_stat(pid)[12])) / os.sysconf("SC_CLK_TCK")


async def test_no_process_is_started_before_the_first_image_and_one_serves_all(
    workers: Callable[[], set[int]],
) -> None:
    async with _open(Workshop()) as workshop:
        assert workers() == set()
        await workshop.process(_SMALL, _JPEG)
        first = workers()
        await asyncio.gather(*(workshop.process(_SMALL, _JPEG) for _ in range(5)))
        assert len(first) == 1
        assert workers() == first


async def test_as_many_images_at_a_time_as_there_are_workers(workers: Callable[[], set[int]]) -> None:
    async with _open(Workshop(workers=2)) as workshop, _stopped(workshop, workers):
        stuck = _begin(workshop)
        await asyncio.sleep(0)

        await workshop.process(_SMALL, _JPEG)

        assert not stuck.done()
        assert len(workers()) == 2


async def test_a_full_workshop_refuses_at_once_and_the_others_come_in_their_order(
    workers: Callable[[], set[int]],
) -> None:
    finished: list[int] = []
    async with _open(Workshop(most_waiting=2)) as workshop:
        async with _stopped(workshop, workers):
            calls = [_begin(workshop) for _ in range(3)]
            for number, call in enumerate(calls):
                call.add_done_callback(lambda _, number=number: finished.append(number))
            await _until(lambda: (workshop.busy, workshop.waiting) == (1, 2))

            with pytest.raises(WorkshopBusy):
                await asyncio.wait_for(workshop.process(_SMALL, _JPEG), 0.5)

        await asyncio.gather(*calls)
        assert finished == [0, 1, 2]
        assert (workshop.busy, workshop.waiting) == (0, 0)
        await workshop.process(_SMALL, _JPEG)


async def test_with_no_place_to_wait_an_image_that_need_not_wait_is_processed() -> None:
    async with _open(Workshop(most_waiting=0)) as workshop:
        await workshop.process(_SMALL, _JPEG)


async def test_a_call_that_is_cancelled_while_it_waits_frees_its_place_and_is_not_processed(
    workers: Callable[[], set[int]],
) -> None:
    async with _open(Workshop(most_waiting=1)) as workshop:
        async with _stopped(workshop, workers) as pid:
            first, waiting = _begin(workshop), asyncio.create_task(workshop.process(_largest(), "image/webp"))
            await _until(lambda: (workshop.busy, workshop.waiting) == (1, 1))

            waiting.cancel()
            await asyncio.wait([waiting])

            assert workshop.waiting == 0
            last = _begin(workshop)
        await asyncio.gather(first, last)
        assert int(_status(pid, "VmHWM")) < 100_000


async def test_a_call_that_is_cancelled_while_it_is_processed_keeps_its_worker_until_that_has_finished(
    workers: Callable[[], set[int]],
) -> None:
    async with _open(Workshop()) as workshop:
        async with _stopped(workshop, workers) as pid:
            processing = _begin(workshop)
            await _until(lambda: workshop.busy == 1)

            processing.cancel()
            await asyncio.wait([processing])

            assert workshop.busy == 1
        other = await workshop.process(encoded(picture(30, 20), "PNG"), "image/png")
        # The other's own, not what was left behind.
        assert (other.width, other.height) == (30, 20)
        assert workers() == {pid}


async def test_an_image_that_ends_its_process_is_refused_and_the_next_one_is_not(
    workers: Callable[[], set[int]],
) -> None:
    async with _open(Workshop()) as workshop:
        await workshop.process(_SMALL, _JPEG)
        (pid,) = workers()
        deadly, next_one = asyncio.create_task(workshop.process(_largest(), "image/webp")), _begin(workshop)
        await _until(lambda: _is_decoding_the_largest(pid))

        os.kill(pid, signal.SIGKILL)

        with pytest.raises(WorkshopFailed):
            await deadly
        assert (await next_one).width == 64
        assert pid not in workers()


async def test_a_process_that_ended_while_it_was_idle_costs_no_image(workers: Callable[[], set[int]]) -> None:
    async with _open(Workshop()) as workshop:
        await workshop.process(_SMALL, _JPEG)
        (pid,) = workers()
        os.kill(pid, signal.SIGKILL)
        await _until(lambda: _has_ended(pid))

        await workshop.process(_SMALL, _JPEG)


async def test_an_image_that_takes_too_long_is_refused_and_its_process_ended(workers: Callable[[], set[int]]) -> None:
    async with _open(Workshop(seconds=0.05)) as workshop:
        with pytest.raises(WorkshopFailed, match="too slow"):
            await workshop.process(_largest(), "image/webp")
        assert workers() == set()


async def test_an_image_that_takes_too_much_memory_is_refused() -> None:
    data = encoded(Image.new("RGB", (5000, 5000), "teal"), "PNG", compress_level=1)
    # The pixels of this one take 100 MB, and a process without an image 36.
    async with _open(Workshop(memory=125_000_000)) as workshop:
        with pytest.raises(WorkshopFailed, match="too much memory"):
            await workshop.process(data, "image/png")
        await workshop.process(_SMALL, _JPEG)


async def test_processes_have_limits_and_come_after_what_serves_calls(workers: Callable[[], set[int]]) -> None:
    async with _open(Workshop(memory=400_000_000)) as workshop:
        await workshop.process(_SMALL, _JPEG)
        (pid,) = workers()
        assert _limits(pid) >= {
            ("Max address space", "400000000"),
            ("Max core file size", "0"),
            ("Max file size", "0"),
            ("Max open files", "16"),
            ("Max processes", "0"),
        }
        assert int(_stat(pid)[16]) == min(19, os.nice(0) + 10)
        assert os.sched_getscheduler(pid) == os.SCHED_IDLE
        assert _read(pid, "oom_score_adj") == "1000\n"
        assert (os.getpgid(pid), os.getsid(pid)) == (pid, os.getsid(0))


def _limits(pid: int) -> set[tuple[str, str]]:
    """Those that can neither be passed nor raised."""
    rows = [line[:26].split() + line[26:].split()[:2] for line in _read(pid, "limits").splitlines()]
    return {(" ".join(row[:-2]), row[-1]) for row in rows if row[-1] == row[-2]}


async def test_processes_know_no_secret_and_hold_no_file(
    workers: Callable[[], set[int]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("INSTA_S3_SECRET", "open sesame")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "open sesame")
    with (tmp_path / "database").open("w") as file:
        os.set_inheritable(file.fileno(), True)
        async with _open(Workshop()) as workshop:
            await workshop.process(_SMALL, _JPEG)
            (pid,) = workers()
            variables = _read(pid, "environ").split("\0")
            names = {variable.partition("=")[0] for variable in variables if variable}
            files = {int(name): os.readlink(f"/proc/{pid}/fd/{name}") for name in os.listdir(f"/proc/{pid}/fd")}
    assert names <= {"PYTHONPATH", "PYTHONHOME", "LD_LIBRARY_PATH"}
    assert files.keys() == {0, 1, 2}
    assert files[0].startswith("socket:")
    assert files[1] == files[2] == "/dev/null"


async def test_close_ends_all_processes_and_all_calls(workers: Callable[[], set[int]]) -> None:
    async with _open(Workshop(workers=2)) as workshop, _stopped(workshop, workers) as first:
        calls = [_begin(workshop)]
        await _until(lambda: workshop.busy == 1)
        await workshop.process(_SMALL, _JPEG)
        (second,) = workers() - {first}
        os.kill(second, signal.SIGSTOP)
        calls += [_begin(workshop) for _ in range(3)]
        await _until(lambda: (workshop.busy, workshop.waiting) == (2, 2))

        workshop.close()

        assert workers() == set()
        outcomes = await asyncio.wait_for(asyncio.gather(*calls, return_exceptions=True), 5)
        assert [type(outcome) for outcome in outcomes] == [WorkshopBusy] * 4
        assert (workshop.busy, workshop.waiting) == (0, 0)
        with pytest.raises(WorkshopBusy):
            await workshop.process(_SMALL, _JPEG)
        assert workers() == set()


_PARENT = """
import asyncio, sys
from pathlib import Path
from services.posts.media.workshop import Workshop

async def main():
    workshop = Workshop()
    await workshop.process(Path(sys.argv[1]).read_bytes(), "image/jpeg")
    print("ready", flush=True)
    if len(sys.argv) > 2:
        await workshop.process(Path(sys.argv[2]).read_bytes(), "image/webp")
    await asyncio.Event().wait()

asyncio.run(main())
"""


@pytest.mark.parametrize("at_work", [False, True], ids=["idle", "at-work"])
async def test_a_process_ends_with_its_parent(tmp_path: Path, at_work: bool) -> None:
    files = [tmp_path / "small", tmp_path / "large"][: 1 + at_work]
    for file, data in zip(files, (_SMALL, _largest()), strict=False):
        file.write_bytes(data)
    with _popen("-c", _PARENT, *map(str, files), stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        try:
            assert parent.stdout.readline() == b"ready\n"
            (pid,) = _children(parent.pid)
            if at_work:
                await _until(lambda: _is_decoding_the_largest(pid))
        finally:
            parent.kill()

    await _until(lambda: _has_ended(pid))


def _popen(*arguments: str, stdin: int | None = None, stdout: int | None = None) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, *arguments], cwd=_ROOT, stdin=stdin, stdout=stdout)


async def test_a_process_that_takes_too_long_ends_also_if_nobody_else_looks() -> None:
    ours, theirs = socket.socketpair()
    arguments = ("-m", "services.posts.media.worker", "768000000", "1")
    with ours, theirs, _popen(*arguments, stdin=theirs.fileno()) as worker:
        try:
            data = _largest()
            ours.sendall(wire.request_header(len(data), "image/webp") + data)
            await _until(lambda: _is_decoding_the_largest(worker.pid))
            # However quick it is.
            worker.send_signal(signal.SIGSTOP)
            alarm = 1 << signal.SIGALRM - 1
            await _until(lambda: int(_status(worker.pid, "ShdPnd"), 16) & alarm != 0)
            worker.send_signal(signal.SIGCONT)
            assert worker.wait(10) == -signal.SIGALRM
        finally:
            worker.kill()


def _impostor(folder: Path, does: str) -> None:
    """A worker that does something else, found in place of the real one by those who look there first."""
    package = folder / "services" / "posts" / "media"
    package.mkdir(parents=True)
    (package / "worker.py").write_text(
        f"import socket, time\nparent = socket.socket(fileno=0)\nready, nothing = b'\\n', b'\\0\\0\\0\\0'\n{does}\n"
    )
    for part in (package, package.parent, package.parent.parent):
        (part / "__init__.py").touch()


@pytest.mark.parametrize(
    ("does", "error"),
    [
        ("raise SystemExit(3)", WorkshopBusy),
        ("parent.sendall(ready); parent.recv(1)", WorkshopFailed),
        ("parent.sendall(ready); parent.recv(1); parent.sendall(nothing); time.sleep(60)", WorkshopFailed),
        ("parent.sendall(ready); parent.recv(1); parent.sendall(b'\\xff' * 9); time.sleep(60)", WorkshopFailed),
        ("parent.sendall(ready); parent.recv(1); parent.close(); time.sleep(60)", WorkshopFailed),
    ],
    ids=["cannot-start", "hangs-up", "empty-header", "long-header", "hangs-up-and-stays"],
)
async def test_a_worker_that_is_none_gets_no_further(
    workers: Callable[[], set[int]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, does: str, error: type[Exception]
) -> None:
    _impostor(tmp_path, does)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    async with _open(Workshop()) as workshop:
        with pytest.raises(error):
            await workshop.process(_SMALL, _JPEG)
        assert workers() == set()


# More than the kernel keeps for somebody who does not take it.
_LONG = _SMALL + bytes(1_000_000)


@pytest.mark.parametrize(
    ("does", "data"),
    [
        ("time.sleep(60)", _LONG),
        ("parent.recv(1); time.sleep(60)", _LONG),
        ("time.sleep(60)", _SMALL),
        ("parent.sendall(b'\\0\\0\\x0f\\0')\nfor _ in range(20): parent.sendall(b' '); time.sleep(0.1)", _SMALL),
    ],
    ids=["hears-nothing", "hears-a-word", "says-nothing", "says-it-bit-by-bit"],
)
async def test_a_worker_has_no_more_time_whatever_it_does(
    workers: Callable[[], set[int]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, does: str, data: bytes
) -> None:
    # After the image has come: what it says before, it would say while it is idle.
    _impostor(tmp_path, f"parent.sendall(ready); {'' if data is _LONG else 'parent.recv(1); '}{does}")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    async with _open(Workshop(seconds=0.3)) as workshop:
        with pytest.raises(WorkshopFailed, match="too slow"):
            await asyncio.wait_for(workshop.process(data, _JPEG), 10)
        assert workers() == set()
