"""Messages as JSON, rendered once and without building objects for a JSON encoder.

Everything else is encoded by msgspec from the types that the calls declare.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from time import gmtime, strftime
from typing import Final

import msgspec
from msgspec import Struct

from chatd.model import MAX_INTEGER, Message

RenderMessage = Callable[[Message], bytes]

_SEQS: Final = MAX_INTEGER + 1
_TIMES: Final = 1 << 64

_encode: Final = msgspec.json.Encoder().encode


def document(value: Struct) -> bytes:
    """A JSON document: one line, so that it ends with a line feed."""
    return _encode(value) + b"\n"


def array_document(name: bytes, text: str) -> bytes:
    """The document of one member, a JSON array that is encoded already."""
    return b'{"%b":%b}\n' % (name, text.encode("utf-8"))


def timestamp(microseconds: int) -> str:
    """A time since the Unix epoch as `YYYY-MM-DDTHH:MM:SSZ`."""
    return _second(microseconds // 1_000_000)


@lru_cache(4096)
def _second(second: int) -> str:
    return strftime("%Y-%m-%dT%H:%M:%SZ", gmtime(second))


def message(value: Message) -> bytes:
    """`{"seq","sent_by","message","sent_at","received_by"}`, without a line feed.

    If they are set, `edited_at` and `deleted_at` follow.
    """
    return b'{"seq":%d,"sent_by":%d,"message":%b,"sent_at":"%b","received_by":%d%b}' % (
        value.seq,
        value.sent_by,
        _encode(value.text),
        timestamp(value.sent_at).encode("ascii"),
        value.received_by,
        _revision(value) if value.is_revised else b"",
    )


def _revision(value: Message) -> bytes:
    return b"".join(
        b',"%b":"%b"' % (name, timestamp(at).encode("ascii"))
        for name, at in ((b"edited_at", value.edited_at), (b"deleted_at", value.deleted_at))
        if at is not None
    )


def messages(meta: Struct, encoded: list[bytes]) -> bytes:
    """The document `{"meta", "messages"}`."""
    return b'{"meta":%b,"messages":[%b]}\n' % (_encode(meta), b",".join(encoded))


class EncodedMessageCache:
    """Caches encoded messages for all responses that contain them: sends, polls and pages.

    Recipient, seq and time identify a message that was not revised; others, which are few, are
    encoded each time. The time differs if the database was set back and has another message there.
    The latest are cached: about 5 MB at most. Of long ones, which take longer to encode, there are
    as many as fit into 4 MB, so that the polls of an account that is woken share them.
    """

    SIZE: Final = 8192
    LARGEST: Final = 512
    LONG_BYTES: Final = 4 << 20

    def __init__(self) -> None:
        # Keys are numbers: tuples would be traversed by Python's garbage collector.
        self._encoded: dict[int, bytes] = {}
        self._long: dict[int, bytes] = {}
        self._long_bytes = 0

    def __call__(self, value: Message) -> bytes:
        """One message."""
        # `is_revised` without a call.
        if value.edited_at is not None or value.deleted_at is not None:
            return message(value)
        key = (value.received_by * _SEQS + value.seq) * _TIMES + value.sent_at
        return self._encoded.get(key) or self._encode_new(key, value)

    def all(self, values: Sequence[Message]) -> list[bytes]:
        """These messages; the same as a call for each, which costs a page half as much again."""
        get = self._encoded.get
        encoded = []
        for value in values:
            if value.edited_at is not None or value.deleted_at is not None:
                encoded.append(message(value))
            else:
                key = (value.received_by * _SEQS + value.seq) * _TIMES + value.sent_at
                encoded.append(get(key) or self._encode_new(key, value))
        return encoded

    def _encode_new(self, key: int, value: Message) -> bytes:
        """A message that is not among the short ones."""
        encoded = self._long.get(key)
        if encoded is not None:
            return encoded
        encoded = message(value)
        if len(encoded) > self.LARGEST:
            self._keep_long(key, encoded)
        else:
            if len(self._encoded) >= self.SIZE:
                self._encoded.clear()
            self._encoded[key] = encoded
        return encoded

    def _keep_long(self, key: int, encoded: bytes) -> None:
        if self._long_bytes + len(encoded) > self.LONG_BYTES:
            self._long.clear()
            self._long_bytes = 0
        self._long[key] = encoded
        self._long_bytes += len(encoded)
