"""Images over HTTP: GET /media/<folder>/<name>, for everybody. What is under a name never changes."""

from __future__ import annotations

import os
import re
import stat
from contextlib import suppress
from pathlib import Path

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import FileResponse, PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from chassis import logs
from chassis.settings import Settings

# Of a path as it comes: in one that is decoded an encoded slash would be a slash.
_PATH = re.compile(rb"/media/([0-9a-f]{32})/([0-9]{1,5}\.(webp|jpg))")
_TYPES = {"webp": "image/webp", "jpg": "image/jpeg"}
_METHODS = ("GET", "HEAD")
_RANGE = re.compile(r"bytes=(?:([0-9]{1,15})-([0-9]{1,15})?|-([0-9]{1,15}))", re.IGNORECASE)
_HEADERS = {
    # Whatever a browser is brought to take it for, it does nothing; and it may be shown on any page.
    "Content-Security-Policy": "default-src 'none'; sandbox",
    "Cross-Origin-Resource-Policy": "cross-origin",
}
_KEEP = "public, max-age=31536000, immutable"
_DO_NOT_KEEP = "no-store"
_KEPT = (200, 206, 304)

log = logs.get(__name__)


def url(settings: Settings) -> str:
    """Where the images are, as long as no other place is said to be."""
    scheme = "http" if settings.tls_certificate is None else "https"
    return f"{scheme}://{settings.media_listen}/media"


def app(root: Path) -> ASGIApp:
    """Serves images: the files <32 hexadecimal digits>/<number>.webp and .jpg in a folder. Links are not followed."""

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.update(_HEADERS)
                headers["Cache-Control"] = _KEEP if message["status"] in _KEPT else _DO_NOT_KEEP
            await send(message)

        try:
            response = _response(root, scope)
        except OSError:
            log.error("an image cannot be read", path=scope["path"], exc_info=True)
            response = _error(500, "The image cannot be read at the moment.")
        # It may be erased while it is sent: then the server ends the connection before all that was promised.
        with suppress(FileNotFoundError):
            await response(scope, receive, send_with_headers)

    return answer


def _response(root: Path, scope: Scope) -> Response:
    """The answer to a request. One that asks for several parts is made one that asks for all.

    Raises:
        OSError: the disk fails, or does not let this process in.
    """
    match = _PATH.fullmatch(scope["raw_path"])
    if match is None:
        return _error(404, "There is no such image.")
    if scope["method"] not in _METHODS:
        return _error(405, "Images can only be read.", Allow=", ".join(_METHODS))
    folder, name, kind = (part.decode() for part in match.groups())
    found = _stat(root / folder, name)
    if found is None:
        return _error(404, "There is no such image.")
    etag = f'"{folder[:16]}.{name}"'
    asked = Headers(scope=scope)
    known = {tag.strip().removeprefix("W/") for tag in ",".join(asked.getlist("if-none-match")).split(",")}
    if known & {etag, "*"}:
        return Response(status_code=304, headers={"ETag": etag})
    first = _first_byte(asked, etag, found.st_size) if scope["method"] == "GET" else None
    if first is None:
        # FileResponse would refuse what a server may or must overlook (RFC 9110, 14.2).
        scope["headers"] = [header for header in scope["headers"] if header[0] != b"range"]
    elif first >= found.st_size:
        text = f"The image has only {found.st_size} bytes."
        return _error(416, text, **{"Content-Range": f"bytes */{found.st_size}"})
    return FileResponse(root / folder / name, headers={"ETag": etag}, media_type=_TYPES[kind], stat_result=found)


def _stat(folder: Path, name: str) -> os.stat_result | None:
    """Of a file in a folder, both of which are no links. None: there is none."""
    try:
        if not stat.S_ISDIR(os.lstat(folder).st_mode):
            return None
        found = os.lstat(folder / name)
    except FileNotFoundError:
        return None
    return found if stat.S_ISREG(found.st_mode) else None


def _first_byte(asked: Headers, etag: str, size: int) -> int | None:
    """Where the one part begins that is asked for. None: all is, or several parts are, or nothing that makes sense."""
    match = _RANGE.fullmatch(",".join(asked.getlist("range")))
    if match is None or asked.get("if-range", etag) != etag:
        return None
    first, last, suffix = match.groups()
    if suffix:
        return max(size - int(suffix), 0)
    return None if last and int(last) < int(first) else int(first)


def _error(status: int, sentence: str, **headers: str) -> Response:
    return PlainTextResponse(f"{sentence}\n", status, headers)
