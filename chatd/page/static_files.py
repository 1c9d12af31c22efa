"""The web page at `/`: a client of the public API like any other, in files of this package.

The files are read once. Their policy lets the page load nothing that is not this service's own,
run no script that stands in markup, and make no markup out of text (trusted types).
"""

from __future__ import annotations

import hashlib
from importlib.resources import files
from typing import Final

from klein import Response
from msgspec import Struct
from twisted.web.server import Request
from werkzeug.exceptions import NotFound

POLICY: Final = "; ".join(
    [
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",
    ]
)
"""Content-Security-Policy, level 3."""

_TYPES: Final = {".js": "text/javascript", ".svg": "image/svg+xml", ".json": "application/json"}


class StaticFile(Struct, frozen=True):
    """A file as it is served, and the headers that go with it."""

    body: bytes
    headers: dict[str | bytes, str]

    @classmethod
    def of(cls, name: str, body: bytes) -> StaticFile:
        """A file of that name; its extension tells the media type, its hash the ETag."""
        extension = "." + name.rpartition(".")[2]
        kind = _TYPES.get(extension) or f"text/{extension[1:]}"
        if kind.startswith("text/"):
            kind += "; charset=utf-8"
        return cls(
            body,
            {
                "Content-Type": kind,
                "ETag": f'"{hashlib.sha256(body).hexdigest()[:32]}"',
                # Kept, but asked about each time: after an upgrade nobody runs half an old page.
                "Cache-Control": "no-cache",
                "Content-Security-Policy": POLICY,
                "X-Content-Type-Options": "nosniff",
                "Referrer-Policy": "no-referrer",
                "Cross-Origin-Opener-Policy": "same-origin",
                "Cross-Origin-Resource-Policy": "same-origin",
            },
        )

    def respond(self, request: Request) -> Response:
        """The file, or 304 where the client has it (RFC 9110 section 13.1.2)."""
        if _matches(request.getHeader("if-none-match"), self.headers["ETag"]):
            return Response(304, dict(self.headers), b"")
        return Response(200, {**self.headers, "Content-Length": str(len(self.body))}, self.body)


def _matches(condition: str | None, etag: str) -> bool:
    if condition is None:
        return False
    tags = [tag.strip().removeprefix("W/") for tag in condition.split(",")]
    return etag in tags or tags == ["*"]


_FOLDER: Final = files(__package__).joinpath("assets")
_FILES: Final = {
    entry.name: StaticFile.of(entry.name, entry.read_bytes())
    for entry in _FOLDER.iterdir()
    if entry.is_file()
}


async def get_page(api: object, request: Request) -> Response:
    """The page; a handler of `chatd.api.api.API`."""
    return _FILES["index.html"].respond(request)


async def get_web_file(api: object, request: Request, name: str) -> Response:
    """A part of the page."""
    if name not in _FILES:
        raise NotFound
    return _FILES[name].respond(request)
