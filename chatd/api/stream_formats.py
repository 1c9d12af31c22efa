"""The media types of streams, and their choice by `Accept` (contract, Streams).

Server-sent events are what browsers read (WHATWG HTML, section 9.2), lines of JSON what programs
parse most easily.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final, Protocol

from chatd.model import Cursor

RECONNECT_MILLISECONDS: Final = 2000
"""After how long a browser reconnects when its connection is cut."""
SUPERSEDED_MILLISECONDS: Final = 30_000
"""After how long a browser reconnects when it has too many streams, of which it ended another."""


class StreamFormat(Protocol):
    """How the events of a stream are written. Documents are JSON on one line."""

    media_type: bytes
    keep_alive: bytes

    def opening(self, cursor: Cursor) -> bytes:
        """What a stream that starts at `cursor` begins with, to show that nothing buffers it."""
        ...

    def message(self, epoch: bytes, seq: int, stamp: int, changes: bytes, document: bytes) -> bytes:
        """A message; the cursor after it has these four parts, of which the last may be empty."""
        ...

    def change(self, epoch: bytes, seq: int, stamp: int, changes: bytes, document: bytes) -> bytes:
        """A change; the cursor after it has these four parts."""
        ...

    def drain(self, retry_after: int) -> bytes:
        """The end: come back after this many seconds."""
        ...

    def superseded(self) -> bytes:
        """The end: the user has opened too many streams since."""
        ...

    def error(self, problem: bytes) -> bytes:
        """The end: an error."""
        ...


class ServerSentEvents:
    """`text/event-stream`."""

    media_type = b"text/event-stream"
    keep_alive = b": keepalive\n\n"

    def opening(self, cursor: Cursor) -> bytes:
        # An id without data changes the browser's Last-Event-ID and dispatches no event.
        return b"retry: %d\nid: %b\n\n" % (RECONNECT_MILLISECONDS, str(cursor).encode("ascii"))

    def message(self, epoch: bytes, seq: int, stamp: int, changes: bytes, document: bytes) -> bytes:
        parts = (epoch, seq, stamp, changes, document)
        return b"event: message\nid: %b-%d-%x%b\ndata: %b\n\n" % parts

    def change(self, epoch: bytes, seq: int, stamp: int, changes: bytes, document: bytes) -> bytes:
        parts = (epoch, seq, stamp, changes, document)
        return b"event: change\nid: %b-%d-%x%b\ndata: %b\n\n" % parts

    def drain(self, retry_after: int) -> bytes:
        return b'event: drain\nretry: %d\ndata: {"drain":true,"retry_after":%d}\n\n' % (
            retry_after * 1000,
            retry_after,
        )

    def superseded(self) -> bytes:
        return (
            b'event: superseded\nretry: %d\ndata: {"superseded":true}\n\n' % SUPERSEDED_MILLISECONDS
        )

    def error(self, problem: bytes) -> bytes:
        return b"event: error\ndata: %b\n\n" % problem.rstrip(b"\n")


class JSONLines:
    """`application/x-ndjson`."""

    media_type = b"application/x-ndjson"
    keep_alive = b'{"keepalive":true}\n'

    def opening(self, cursor: Cursor) -> bytes:
        return self.keep_alive

    def message(self, epoch: bytes, seq: int, stamp: int, changes: bytes, document: bytes) -> bytes:
        return b'{"cursor":"%b-%d-%x%b","message":%b}\n' % (epoch, seq, stamp, changes, document)

    def change(self, epoch: bytes, seq: int, stamp: int, changes: bytes, document: bytes) -> bytes:
        return b'{"cursor":"%b-%d-%x%b","change":%b}\n' % (epoch, seq, stamp, changes, document)

    def drain(self, retry_after: int) -> bytes:
        return b'{"drain":true,"retry_after":%d}\n' % retry_after

    def superseded(self) -> bytes:
        return b'{"superseded":true}\n'

    def error(self, problem: bytes) -> bytes:
        return b'{"error":%b}\n' % problem.rstrip(b"\n")


SERVER_SENT_EVENTS: Final = ServerSentEvents()
JSON_LINES: Final = JSONLines()

_FORMATS: Final[dict[bytes, StreamFormat]] = {
    SERVER_SENT_EVENTS.media_type: SERVER_SENT_EVENTS,
    JSON_LINES.media_type: JSON_LINES,
}
_JSON: Final = (b"application/json", b"application/*", b"*/*")
"""Ranges that include JSON, the most specific first (RFC 9110 section 12.5.1)."""

MAX_ACCEPT: Final = 2000
"""Bytes of `Accept` that are looked at: a header may have thousands of ranges and parameters."""

_WEIGHT: Final = re.compile(rb"[ \t]*q=(0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?)[ \t]*", re.IGNORECASE)


def negotiate(accept: Sequence[bytes]) -> StreamFormat | None:
    """The stream that the values of `Accept` ask for; None for JSON.

    Only a range that names a stream's type asks for it, never a wildcard. The type with the largest
    weight counts, of equal ones the first; JSON that is only included by a wildcard comes last. A
    header of more than `MAX_ACCEPT` bytes asks for no stream.
    """
    if not any(
        b"event-stream" in value or b"ndjson" in value for value in map(bytes.lower, accept)
    ):
        return None
    if sum(map(len, accept)) > MAX_ACCEPT:
        return None
    weights: dict[bytes, float] = {}
    for media_range in b",".join(accept).split(b","):
        name, *parameters = media_range.split(b";")
        weight = 1.0
        for parameter in parameters:
            match = _WEIGHT.fullmatch(parameter)
            if match is not None:
                weight = float(match[1])
        weights.setdefault(name.strip(b" \t").lower(), weight)
    json = next((weights[each] for each in _JSON if each in weights), 0.0)
    streams = [each for each in weights if each in _FORMATS and weights[each] > 0]
    if not streams:
        return None
    best = max(streams, key=weights.__getitem__)
    names = list(weights)
    json_first = _JSON[0] in weights and names.index(_JSON[0]) < names.index(best)
    if weights[best] < json or (weights[best] == json and json_first):
        return None
    return _FORMATS[best]
