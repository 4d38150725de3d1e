"""Images over HTTP: what is served, how caches are told of it, and what nobody is brought to serve."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.http import Connection, ask, connected
from tests.running import RunningSuite

IMAGE = os.urandom(200_000)
FOR_EVER = "public, max-age=31536000, immutable"
SECRET = b"nobody is to read this"


class Folder:
    """A folder of images that a running suite serves.

    Attributes:
        name: 32 hexadecimal digits.
        path: Of its URL.
        address: host:port.
    """

    def __init__(self, suite: RunningSuite) -> None:
        served = urlsplit(suite.images_url)
        self.root = Path(suite.environment["INSTA_DATA"]) / "media"
        self.name = secrets.token_hex(16)
        self.path = f"{served.path}/{self.name}"
        self.address = served.netloc
        self.files = self.root / self.name
        self.files.mkdir(parents=True)

    def add(self, name: str, content: bytes = IMAGE) -> str:
        """Add an image. Returns the path of its URL."""
        (self.files / name).write_bytes(content)
        return f"{self.path}/{name}"


@pytest.fixture
def folder(together: RunningSuite) -> Folder:
    return Folder(together)


@pytest.fixture
def connection(folder: Folder) -> Iterator[Connection]:
    with connected(folder.address) as made:
        yield made


@pytest.mark.parametrize(("name", "media_type"), [("320.webp", "image/webp"), ("1080.jpg", "image/jpeg")])
def test_an_image_is_served_for_ever_and_for_any_page(
    name: str, media_type: str, folder: Folder, connection: Connection
) -> None:
    path = folder.add(name)

    got = connection.ask(path)
    head = connection.ask(path, "HEAD")

    assert (got.status, got.body) == (200, IMAGE)
    assert (head.status, head.body) == (200, b"")
    for answer in (got, head):
        assert answer.headers["content-type"] == media_type
        assert answer.headers["content-length"] == str(len(IMAGE))
        assert answer.headers["cache-control"] == FOR_EVER
        assert answer.headers["accept-ranges"] == "bytes"
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["content-security-policy"] == "default-src 'none'; sandbox"
        assert answer.headers["cross-origin-resource-policy"] == "cross-origin"
        assert "server" not in answer.headers


def test_many_images_come_over_one_connection(folder: Folder, connection: Connection) -> None:
    paths = [folder.add(f"{width}.webp", bytes([width]) * width) for width in range(1, 20)]

    for path in paths:
        # Without waiting for the answers.
        connection.send(path)

    assert [connection.answer().body for _ in paths] == [bytes([width]) * width for width in range(1, 20)]


def test_an_empty_file_is_served_as_it_is(folder: Folder, connection: Connection) -> None:
    path = folder.add("1.jpg", b"")

    assert (connection.ask(path).status, connection.ask(path, Range="bytes=0-").status) == (200, 416)


def test_each_image_has_a_strong_tag_that_stays(folder: Folder, connection: Connection) -> None:
    paths = [folder.add(name) for name in ("320.webp", "320.jpg", "640.webp")]

    tags = [connection.ask(path).headers["etag"] for path in paths]

    assert len(set(tags)) == 3
    assert all(tag.startswith('"') and tag.endswith('"') and len(tag) < 40 for tag in tags)
    os.utime(folder.files / "320.webp", (0, 0))
    assert ask(folder.address, paths[0], "HEAD").headers["etag"] == tags[0]


def test_who_has_an_image_does_not_get_it_again(folder: Folder, connection: Connection) -> None:
    path = folder.add("320.webp")
    tag = connection.ask(path, "HEAD").headers["etag"]

    for known in (tag, f"W/{tag}", f'"other", {tag}', f'W/"other",W/{tag}', "*"):
        answer = connection.ask(path, If_None_Match=known)
        assert (answer.status, answer.body) == (304, b"")
        assert (answer.headers["etag"], answer.headers["cache-control"]) == (tag, FOR_EVER)
        assert connection.ask(path, "HEAD", If_None_Match=known, Range="bytes=0-1").status == 304
    for unknown in ('"other"', "", tag.strip('"'), f"{tag[:-1]}"):
        assert connection.ask(path, If_None_Match=unknown).status == 200
    assert connection.ask(f"{folder.path}/640.webp", If_None_Match="*").status == 404


@pytest.mark.parametrize(
    ("asked", "first", "end"),
    [
        ("bytes=0-0", 0, 1),
        ("bytes=5-99999", 5, 100_000),
        ("bytes=199999-", 199_999, 200_000),
        ("bytes=70000-", 70_000, 200_000),
        ("bytes=0-999999999999999", 0, 200_000),
        ("bytes=-1", 199_999, 200_000),
        ("bytes=-999999", 0, 200_000),
        ("BYTES=1-2", 1, 3),
    ],
)
def test_a_part_of_an_image_is_served(asked: str, first: int, end: int, folder: Folder, connection: Connection) -> None:
    path = folder.add("320.webp")

    answer = connection.ask(path, Range=asked)

    assert (answer.status, answer.body) == (206, IMAGE[first:end])
    assert answer.headers["content-range"] == f"bytes {first}-{end - 1}/{len(IMAGE)}"
    assert answer.headers["cache-control"] == FOR_EVER
    assert answer.headers["content-type"] == "image/webp"


def test_a_head_has_no_parts(folder: Folder, connection: Connection) -> None:
    answer = connection.ask(folder.add("320.webp"), "HEAD", Range="bytes=0-1")

    assert (answer.status, answer.headers["content-length"]) == (200, str(len(IMAGE)))


@pytest.mark.parametrize("asked", ["bytes=200000-", "bytes=200000-200001", "bytes=999999999999999-", "bytes=-0"])
def test_a_part_that_an_image_does_not_have_is_refused(asked: str, folder: Folder, connection: Connection) -> None:
    path = folder.add("320.webp")

    answer = connection.ask(path, Range=asked)

    assert (answer.status, answer.headers["content-range"]) == (416, f"bytes */{len(IMAGE)}")
    assert answer.headers["cache-control"] == "no-store"
    assert answer.body
    assert connection.ask(path).body == IMAGE


@pytest.mark.parametrize(
    "asked",
    [
        "bytes=0-1,5-6",
        "bytes=0-1,900000-",
        "bytes=" + ",".join(["0-"] * 1000),
        "bytes=2-1",
        "bytes=-",
        "bytes=",
        "bytes",
        "bytes=a-b",
        "bytes=+1-2",
        "bytes=0-" + "9" * 5000,
        "items=0-1",
    ],
)
def test_all_of_an_image_is_served_where_several_parts_or_no_part_that_makes_sense_are_asked_for(
    asked: str, folder: Folder, connection: Connection
) -> None:
    answer = connection.ask(folder.add("320.webp"), Range=asked)

    assert (answer.status, answer.body) == (200, IMAGE)


def test_a_part_is_served_if_it_is_one_of_the_image_that_the_client_began_with(
    folder: Folder, connection: Connection
) -> None:
    path = folder.add("320.webp")
    tag = connection.ask(path, "HEAD").headers["etag"]

    def status(if_range: str, part: str = "bytes=0-1") -> int:
        return connection.ask(path, Range=part, If_Range=if_range).status

    assert status(tag) == 206
    assert [status(other) for other in ('"other"', f"W/{tag}", "Thu, 01 Jan 2099 00:00:00 GMT")] == [200] * 3
    assert status('"other"', "bytes=200000-") == 200


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "get", "MADE-UP"])
def test_images_can_only_be_read(method: str, folder: Folder, connection: Connection) -> None:
    path = folder.add("320.webp")

    answer = connection.ask(path, method)

    assert (answer.status, answer.headers["allow"]) == (405, "GET, HEAD")
    assert answer.headers["cache-control"] == "no-store"
    assert answer.body
    assert (folder.files / "320.webp").read_bytes() == IMAGE


def test_what_is_sent_along_with_a_request_is_not_looked_at(folder: Folder, connection: Connection) -> None:
    path = folder.add("320.webp")

    connection.send(f"{path}?width=../../x#y", Content_Length="3", Transfer="x", Upgrade="websocket")
    connection.socket.sendall(b"abc")

    assert connection.answer().body == IMAGE


# {name} is a folder with images, and 320.webp is one.
HOSTILE = (
    "/",
    "/media",
    "/media/",
    "/media/{name}",
    "/media/{name}/",
    "/media/{name}/320.webp/",
    "/media/{name}//320.webp",
    "//media/{name}/320.webp",
    "/media//{name}/320.webp",
    "/media/{name}/./320.webp",
    "/media/./{name}/320.webp",
    "/media/{name}/../{name}/320.webp",
    "/media/{name}/%2e%2e/{name}/320.webp",
    "/media/{name}%2F320.webp",
    "/media/{name}%2f320.webp",
    "/media%2F{name}/320.webp",
    "/media/{name}%5C320.webp",
    "/media/{name}\\320.webp",
    "/media/{name}/320%2Ewebp",
    "/media/{name}/320.webp%00",
    "/media/{name}/320.webp%0a",
    "/media/{name}/320.webp%20",
    "/media/{name}/320.webp;x",
    "/media/{name}/320.webp.",
    "/media/{name}/320.WEBP",
    "/media/{name}/320.png",
    "/media/{name}/320",
    "/media/{name}/.webp",
    "/media/{name}/000320.webp",
    "/media/{name}/+320.webp",
    "/media/{name}/secret.jpg",
    "/media/{name}/..%2f..%2fusers.db",
    "/media/{name}/..%252f..%252fusers.db",
    "/media/../users.db",
    "/media/..%2fusers.db",
    "/media/%2e%2e/%2e%2e/etc/passwd",
    "/media//etc/passwd",
    "/media/%2fetc%2fpasswd",
    "/../../../../etc/passwd",
    "/media/%c0%ae%c0%ae/users.db",
    "/media/%ff%fe/320.webp",
    "/Media/{name}/320.webp",
    "/media/{NAME}/320.webp",
    "/media/{short}/320.webp",
    "/media/0{name}/320.webp",
    "http://images.example/media/{name}/../320.webp",
    "*",
)


@pytest.mark.parametrize("path", HOSTILE)
def test_nothing_but_names_of_images_is_looked_up(path: str, folder: Folder, connection: Connection) -> None:
    folder.add("320.webp")
    folder.add("secret.jpg", SECRET)

    answer = connection.ask(path.format(name=folder.name, NAME=folder.name.upper() + "A", short=folder.name[1:]))

    assert answer.status == 404
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    assert answer.body == b"There is no such image.\n"


def test_links_and_what_is_no_file_are_not_served(folder: Folder, tmp_path: Path, connection: Connection) -> None:
    """Nor waited for, as a pipe would be."""
    folder.add("320.webp")
    (tmp_path / "1.webp").write_bytes(SECRET)
    linked = secrets.token_hex(16)
    (folder.root / linked).symlink_to(tmp_path)
    (folder.root / f"{linked[:-1]}x").symlink_to(folder.files)
    file = secrets.token_hex(16)
    (folder.root / file).write_bytes(SECRET)
    (folder.files / "2.webp").symlink_to(tmp_path / "1.webp")
    (folder.files / "3.webp").symlink_to("320.webp")
    (folder.files / "4.webp").symlink_to("nowhere")
    (folder.files / "5.webp").mkdir()
    os.mkfifo(folder.files / "6.webp")

    names = [f"{folder.name}/{number}.webp" for number in range(2, 8)]
    names += [f"{linked}/1.webp", f"{file}/1.webp", f"{secrets.token_hex(16)}/1.webp"]

    assert {name: connection.ask(f"/media/{name}").status for name in names} == dict.fromkeys(names, 404)


def test_an_image_that_is_erased_while_it_is_sent_is_sent_to_its_end(folder: Folder, connection: Connection) -> None:
    large = os.urandom(1024) * 32 * 1024
    connection.send(folder.add("9999.jpg", large))
    first = connection.socket.recv(1)
    (folder.files / "9999.jpg").unlink()
    connection.put_back(first)

    assert connection.answer().body == large
    assert connection.ask(f"{folder.path}/9999.jpg").status == 404


def test_what_serves_images_keeps_no_file_open(together: RunningSuite, folder: Folder, connection: Connection) -> None:
    path = folder.add("320.webp")
    assert together.process is not None

    for _ in range(10):
        for headers in ({}, {"Range": "bytes=1-2"}, {"Range": "bytes=200000-"}, {"If_None_Match": "*"}):
            connection.ask(path, **headers)
            connection.ask(path, "HEAD", **headers)

    opened = Path(f"/proc/{together.process.pid}/fd")
    assert not [file for one in opened.iterdir() if folder.name in (file := os.path.realpath(one))]


def test_a_file_that_may_not_be_read_is_a_failure_that_tells_nothing(folder: Folder, connection: Connection) -> None:
    path = folder.add("320.webp")
    (folder.files / "320.webp").chmod(0)
    if os.access(folder.files / "320.webp", os.R_OK):
        pytest.skip("this user may read everything")

    answer = connection.ask(path)

    assert (answer.status, answer.headers["cache-control"]) == (500, "no-store")
    assert folder.name.encode() not in answer.body
