"""Static files of the web page, which is a client of the public API like any other.

The files are read at import. Their Content-Security-Policy restricts the page to this origin and
forbids inline scripts and styles; trusted types forbid markup made from strings.
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
    """A file's content and response headers."""

    body: bytes
    headers: dict[str | bytes, str]

    @classmethod
    def of(cls, name: str, body: bytes) -> StaticFile:
        """Make a file whose media type follows from its name, and its ETag from its content."""
        extension = "." + name.rpartition(".")[2]
        media_type = _TYPES.get(extension) or f"text/{extension[1:]}"
        if media_type.startswith("text/"):
            media_type += "; charset=utf-8"
        return cls(
            body,
            {
                "Content-Type": media_type,
                "ETag": f'"{hashlib.sha256(body).hexdigest()[:32]}"',
                # Cached, but revalidated each time, so that no page mixes files of two versions.
                "Cache-Control": "no-cache",
                "Content-Security-Policy": POLICY,
                "Referrer-Policy": "no-referrer",
                "Cross-Origin-Opener-Policy": "same-origin",
                "Cross-Origin-Resource-Policy": "same-origin",
            },
        )

    def respond(self, request: Request) -> Response:
        """The file, or 304 if `If-None-Match` has its ETag (RFC 9110 section 13.1.2)."""
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
    """Serve the page; a handler of `chatd.api.api.API`."""
    return _FILES["index.html"].respond(request)


async def get_web_file(api: object, request: Request, name: str) -> Response:
    """Serve a file that the page consists of."""
    if name not in _FILES:
        raise NotFound
    return _FILES[name].respond(request)
