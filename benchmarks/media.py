"""Images: what an upload costs, what many at a time do to other calls and to memory, and how fast one is downloaded."""

from __future__ import annotations

import asyncio
import io
import random
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import grpc
from PIL import Image, ImageFilter
from rich.console import Console

from benchmarks import data, sides, sizes
from benchmarks.load import Call, Load, rpc
from benchmarks.measuring import Measured, measure
from benchmarks.options import Options
from benchmarks.report import Bars, Goal, Part, Rows, Verdict, figure, judged
from benchmarks.sides import BUILD, LOAD_CORE, SERVER_CORE, Side
from benchmarks.sizes import Network, Size
from insta.gateway.v1 import media_pb2, media_pb2_grpc, posts_pb2

NAME, TITLE = "media", "Images: uploads of 6 megapixels, and downloads"
AT_ONCE = 16
MOST_CPU_MILLISECONDS = 400.0
MOST_MEMORY_MEGABYTES = 400.0
MOST_SLOWER = 2.0
LEAST_MEGABYTES_PER_SECOND = 200.0
MOST_GROWTH = 1.1

PHOTO = (3000, 2000)
# High enough for a variant of some megabytes.
_POSTER = (1080, 16_000)
_MEGABYTE = 1024 * 1024
_CHUNK_BYTES = 64 * 1024
_ONE_BY_ONE = 5
# Far from what the core could answer: what is looked at is how long a call waits for a processor that works on images.
_CALLS_PER_SECOND = 100
_VIEWERS = 16
_PATIENCE_SECONDS = 0.2
_LOOK_SECONDS = 0.02
_GET_POST = "/insta.gateway.v1.PostService/GetPost"


@dataclass(frozen=True)
class Round:
    """What one round found.

    Attributes:
        cpu_milliseconds: That one upload takes of all processes of the suite.
        alone, beside: The 99th percentile of GetPost in milliseconds, and the same while images are uploaded.
        images_per_second: That were uploaded meanwhile.
        memory_megabytes: The most that all processes had in memory meanwhile.
        megabytes_per_second: Of a download.
        growth: How many times as much was in memory after it was downloaded over and over.
    """

    cpu_milliseconds: float
    alone: float
    beside: float
    images_per_second: float
    memory_megabytes: float
    megabytes_per_second: float
    growth: float


def run(options: Options, console: Console) -> Part:
    """Measure uploads and downloads of a suite in one process, on one core."""
    return of_size(sizes.SMALL, options, console)


def of_size(size: Size, options: Options, console: Console) -> Part:
    """Measure beside calls to a network of a size."""
    BUILD.mkdir(parents=True, exist_ok=True)
    core = SERVER_CORE if options.pinned else None
    with tempfile.TemporaryDirectory(prefix="media-", dir=BUILD) as folder:
        network = sizes.serve(size, Path(folder) / "data")
        with sides.together(Path(folder) / "data", core) as side:
            assert side.settings is not None
            tokens = data.bearers(side.settings, random.Random("viewers").sample(range(1, size.people + 1), _VIEWERS))
            measuring = _Measuring(side, network, tokens, options, console)
            rounds = [measuring.round() for _ in range(options.rounds)]
    return Part(NAME, TITLE, _verdicts(rounds), _bars(rounds), [_rows(rounds)], {"rounds": [*map(asdict, rounds)]})


class _Measuring:
    """Measures one suite."""

    def __init__(self, side: Side, network: Network, tokens: Sequence[str], options: Options, console: Console) -> None:
        self._side = side
        self._network = network
        self._tokens = tokens
        self._options = options
        self._console = console
        self._photo = photo(PHOTO, seed=1)
        self._poster = photo(_POSTER, seed=2)

    def round(self) -> Round:
        """Measure everything once."""
        cpu = self._one_by_one()
        alone = self._get_posts()
        with self._uploading() as uploaded, self._watched_memory() as memory:
            began = time.perf_counter()
            beside = self._get_posts()
            per_second = len(uploaded) / (time.perf_counter() - began)
        speed, growth = self._download()
        found = Round(cpu * 1e3, alone.p99 * 1e3, beside.p99 * 1e3, per_second, max(memory) / _MEGABYTE, speed, growth)
        self._console.print(
            f"{len(self._photo) / _MEGABYTE:.1f} MB, {found.cpu_milliseconds:.0f} ms of CPU; GetPost p99"
            f" {found.alone:.2f} and {found.beside:.2f} ms beside {per_second:.1f} images/s,"
            f" {found.memory_megabytes:.0f} MB; download {speed:.0f} MB/s, {growth:.2f} x the memory",
            style="dim",
            highlight=False,
        )
        return found

    def _one_by_one(self) -> float:
        """The processor time of an upload in seconds."""
        asyncio.run(self._upload(1, self._photo))
        before = self._side.cpu_seconds()
        asyncio.run(self._upload(_ONE_BY_ONE, self._photo))
        return (self._side.cpu_seconds() - before) / _ONE_BY_ONE

    async def _upload(self, times: int, image: bytes) -> media_pb2.Media:
        async with grpc.aio.insecure_channel(self._side.address) as channel:
            stub = media_pb2_grpc.MediaServiceStub(channel)
            for _ in range(times):
                media = await upload(stub, image, self._tokens[0])
            return media

    def _get_posts(self) -> Measured:
        rng = random.Random("posts")
        post_ids = rng.sample(range(1, self._network.size.posts + 1), 1000)
        calls: list[Call] = [
            rpc(_GET_POST, posts_pb2.GetPostRequest(post_id=post_id), number % _VIEWERS)
            for number, post_id in enumerate(post_ids)
        ]
        load = Load(
            self._side.address,
            calls,
            self._tokens,
            self._options.seconds,
            per_second=_CALLS_PER_SECOND,
            warm_up=self._options.warm_up,
            core=LOAD_CORE if self._options.pinned else None,
        )
        return measure(self._side, load)

    @contextmanager
    def _uploading(self) -> Iterator[list[media_pb2.Media]]:
        """Have so many people upload at a time. What they uploaded is added to the list."""
        uploaded: list[media_pb2.Media] = []
        stopping = threading.Event()
        with ThreadPoolExecutor(1) as thread:
            running = thread.submit(asyncio.run, self._upload_many(uploaded, stopping))
            try:
                while not uploaded and not running.done():
                    time.sleep(_LOOK_SECONDS)
                yield uploaded
            finally:
                stopping.set()
            running.result()

    async def _upload_many(self, uploaded: list[media_pb2.Media], stopping: threading.Event) -> None:
        async with grpc.aio.insecure_channel(self._side.address) as channel:
            stub = media_pb2_grpc.MediaServiceStub(channel)

            async def uploader(token: str) -> None:
                while not stopping.is_set():
                    media = await upload(stub, self._photo, token)
                    uploaded.append(media)
                    delete = media_pb2.DeleteMediaRequest(media_id=media.id)
                    await stub.DeleteMedia(delete, metadata=_metadata(token), timeout=60)

            await asyncio.gather(*(uploader(self._tokens[number % _VIEWERS]) for number in range(AT_ONCE)))

    @contextmanager
    def _watched_memory(self) -> Iterator[list[int]]:
        """What all processes of the suite have in memory, time and again."""
        seen = [self._side.rss_bytes()]
        stopping = threading.Event()

        def look() -> None:
            while not stopping.wait(_LOOK_SECONDS):
                seen.append(self._side.rss_bytes())

        with ThreadPoolExecutor(1) as thread:
            looking = thread.submit(look)
            try:
                yield seen
            finally:
                stopping.set()
            looking.result()

    def _download(self) -> tuple[float, float]:
        """Megabytes a second of a download on end, and how many times as much is in memory afterwards."""
        media = asyncio.run(self._upload(1, self._poster))
        asyncio.run(self._download_for(media.id, self._options.warm_up))
        before = self._side.rss_bytes()
        speed = asyncio.run(self._download_for(media.id, self._options.seconds))
        return speed, self._side.rss_bytes() / before

    async def _download_for(self, media_id: int, seconds: float) -> float:
        request = media_pb2.DownloadMediaRequest(media_id=media_id, content_type="image/jpeg")
        size = 0
        async with grpc.aio.insecure_channel(self._side.address) as channel:
            # Bytes as they come: reading the messages is none of the suite's work.
            download: Any = channel.unary_stream(
                "/insta.gateway.v1.MediaService/DownloadMedia",
                request_serializer=media_pb2.DownloadMediaRequest.SerializeToString,
            )
            began = time.perf_counter()
            while time.perf_counter() < began + seconds:
                async for part in download(request, metadata=_metadata(self._tokens[0]), timeout=60):
                    size += len(part)
            return size / _MEGABYTE / (time.perf_counter() - began)


def photo(size: tuple[int, int], seed: int) -> bytes:
    """A JPEG file of so many pixels that is about as hard to pack as a photograph."""
    rng = random.Random(seed)
    width, height = size
    noise = Image.frombytes("RGB", (width // 2, height // 2), rng.randbytes(width // 2 * (height // 2) * 3))
    image = noise.filter(ImageFilter.GaussianBlur(0.6)).resize(size, Image.Resampling.BICUBIC)
    file = io.BytesIO()
    image.save(file, "JPEG", quality=88)
    return file.getvalue()


def _metadata(token: str) -> tuple[tuple[str, str]]:
    return (("authorization", token),)


async def upload(stub: Any, image: bytes, token: str) -> media_pb2.Media:
    """Upload an image, again if the suite is too busy."""
    while True:
        try:
            response: media_pb2.UploadMediaResponse = await stub.UploadMedia(
                _messages(image), metadata=_metadata(token), timeout=60
            )
            return response.media
        except grpc.aio.AioRpcError as failure:
            if failure.code() is not grpc.StatusCode.RESOURCE_EXHAUSTED:
                raise
            await asyncio.sleep(_PATIENCE_SECONDS)


def _messages(image: bytes) -> Iterator[media_pb2.UploadMediaRequest]:
    yield media_pb2.UploadMediaRequest(header=media_pb2.UploadHeader(content_type="image/jpeg", size=len(image)))
    for start in range(0, len(image), _CHUNK_BYTES):
        yield media_pb2.UploadMediaRequest(chunk=image[start : start + _CHUNK_BYTES])


def _verdicts(rounds: Sequence[Round]) -> list[Verdict]:
    at_most = {
        "upload of 6 megapixels: processor time": (MOST_CPU_MILLISECONDS, "ms", [r.cpu_milliseconds for r in rounds]),
        f"{AT_ONCE} uploads at a time: memory": (MOST_MEMORY_MEGABYTES, "MB", [r.memory_megabytes for r in rounds]),
    }
    slower = Goal(f"GetPost beside {AT_ONCE} uploads: p99", "GetPost alone", MOST_SLOWER, at_most=True)
    growth = Goal("download, over and over: memory", "before", MOST_GROWTH, at_most=True)
    speed = Goal("download, one core", "", LEAST_MEGABYTES_PER_SECOND, unit="MB/s")
    return [
        judged(slower, [r.beside / r.alone for r in rounds]),
        *(
            judged(Goal(what, "", most, unit=unit, at_most=True), found)
            for what, (most, unit, found) in at_most.items()
        ),
        judged(growth, [r.growth for r in rounds]),
        judged(speed, [r.megabytes_per_second for r in rounds]),
    ]


def _bars(rounds: Sequence[Round]) -> list[Bars]:
    rows = [
        ("GetPost alone", "together", statistics.median(r.alone for r in rounds)),
        (f"GetPost beside {AT_ONCE} uploads", "together", statistics.median(r.beside for r in rounds)),
    ]
    return [Bars("99th percentile of GetPost", "milliseconds", rows)]


def _rows(rounds: Sequence[Round]) -> Rows:
    headings = ("round", "CPU ms", "p99 ms alone", "beside", "images/s", "MB", "download MB/s")
    rows = [
        (
            str(number),
            figure(r.cpu_milliseconds),
            figure(r.alone),
            figure(r.beside),
            figure(r.images_per_second),
            figure(r.memory_megabytes),
            figure(r.megabytes_per_second),
        )
        for number, r in enumerate(rounds, 1)
    ]
    return Rows("An upload; GetPost alone and beside uploads, and memory then; a download", headings, rows)
