"""Static files of the web page, which is a client of the public API like any other.

The files are read at import. Those that the page refers to have paths with the version of all of
them, `/web/VERSION/NAME`, under which a browser keeps them for good: then a visit is one request,
for the page itself, and no page mixes files of two versions.

The Content-Security-Policy restricts the page to this origin and forbids inline scripts and styles;
trusted types forbid markup made from strings.
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

REVALIDATED: Final = "no-cache"
"""Kept by browsers, which ask each time whether it is still the same."""
IMMUTABLE: Final = "public, max-age=31536000, immutable"
"""Kept by browsers without asking (RFC 8246)."""

_TYPES: Final = {".js": "text/javascript", ".svg": "image/svg+xml", ".json": "application/json"}


class StaticFile(Struct, frozen=True):
    """A file's content and response headers."""

    body: bytes
    headers: dict[str, str]

    @classmethod
    def of(cls, name: str, body: bytes, cache: str = REVALIDATED) -> StaticFile:
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
                "Cache-Control": cache,
                "Content-Security-Policy": POLICY,
                "Referrer-Policy": "no-referrer",
                "Cross-Origin-Opener-Policy": "same-origin",
                "Cross-Origin-Resource-Policy": "same-origin",
            },
        )

    def is_known(self, condition: str) -> bool:
        """Whether `condition`, the If-None-Match of a request, has its ETag (RFC 9110 section
        13.1.2). One of more than `MAX_CONDITION` bytes counts as if it had not."""
        if len(condition) > MAX_CONDITION:
            return False
        tags = [tag.strip().removeprefix("W/") for tag in condition.split(",")]
        return self.headers["ETag"] in tags or tags == ["*"]


MAX_CONDITION: Final = 2000
"""Bytes of an If-None-Match that are looked at: a header may have thousands of tags."""

_FOLDER: Final = files(__package__).joinpath("assets")
_CONTENTS: Final = {
    entry.name: entry.read_bytes() for entry in _FOLDER.iterdir() if entry.is_file()
}

VERSION: Final = hashlib.sha256(
    b"".join(hashlib.sha256(_CONTENTS[name]).digest() for name in sorted(_CONTENTS))
).hexdigest()[:16]
"""The version of all files together."""


def _page() -> bytes:
    """`index.html`, with paths that have the version.

    The scripts are named in it, so that a browser need not read one to find the next.
    """
    preloads = "".join(
        f'<link rel="modulepreload" href="/web/{name}">\n'
        for name in sorted(_CONTENTS)
        if name.endswith(".js")
    )
    page = _CONTENTS["index.html"].decode()
    page = page.replace('<script type="module"', preloads + '<script type="module"')
    return page.replace('="/web/', f'="/web/{VERSION}/').encode()


PAGE: Final = StaticFile.of("index.html", _page())
"""The page itself."""
FILES: Final = {
    name: StaticFile.of(name, body) for name, body in _CONTENTS.items() if name != "index.html"
}
"""The other files by name."""
IMMUTABLE_FILES: Final = {
    name: StaticFile.of(name, file.body, IMMUTABLE) for name, file in FILES.items()
}
"""The same under paths with `VERSION`."""
