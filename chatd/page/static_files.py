"""Static files of the web page, which is a client of the public API like any other.

The files are read at import. Their Content-Security-Policy restricts the page to this origin and
forbids inline scripts and styles; trusted types forbid markup made from strings.
"""

from __future__ import annotations

import hashlib
from importlib.resources import files
from typing import Final

from msgspec import Struct

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
    headers: dict[str, str]

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

    def is_known(self, condition: str) -> bool:
        """Whether `condition`, the If-None-Match of a request, has its ETag (RFC 9110 section
        13.1.2)."""
        tags = [tag.strip().removeprefix("W/") for tag in condition.split(",")]
        return self.headers["ETag"] in tags or tags == ["*"]


_FOLDER: Final = files(__package__).joinpath("assets")
FILES: Final = {
    entry.name: StaticFile.of(entry.name, entry.read_bytes())
    for entry in _FOLDER.iterdir()
    if entry.is_file()
}
"""The files by name."""
