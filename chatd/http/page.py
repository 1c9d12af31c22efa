"""The web page at `/`: a client of the public API like any other, in files of this package.

The files are read once. Their policy lets the page load nothing that is not this service's own,
run no script that stands in markup, and make no markup out of text (trusted types).
"""

from __future__ import annotations

import hashlib
import mimetypes
from importlib.resources import files
from typing import Final

from klein import Klein, Response
from msgspec import Struct
from twisted.web.server import Request

from chatd.http.routes import route

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

_TYPES: Final = {".js": "text/javascript", ".svg": "image/svg+xml"}


class StaticFile(Struct, frozen=True):
    """A file as it is served, and the headers that go with it."""

    body: bytes
    headers: dict[str | bytes, str]

    @classmethod
    def of(cls, name: str, body: bytes) -> StaticFile:
        """A file of that name; its extension tells the media type, its hash the ETag."""
        extension = "." + name.rpartition(".")[2]
        kind = _TYPES.get(extension) or mimetypes.guess_type(name)[0] or "application/octet-stream"
        return cls(
            body,
            {
                "Content-Type": f"{kind}; charset=utf-8",
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


def serve(app: Klein, path: str, file: StaticFile) -> None:
    """Serve a file at a path."""

    async def get_file(api: object, request: Request) -> Response:
        return file.respond(request)

    # Klein tells routes apart by the names of their functions; metrics show them.
    get_file.__name__ = f"file {path}"
    route(app, "GET", path)(get_file)


def add_page(app: Klein) -> None:
    """Serve the page at `/` and its parts below `/web/`."""
    folder = files("chatd.http").joinpath("web")
    for entry in folder.iterdir():
        path = "/" if entry.name == "index.html" else f"/web/{entry.name}"
        serve(app, path, StaticFile.of(entry.name, entry.read_bytes()))
