"""JSON request bodies."""

from __future__ import annotations

import re
from typing import Final, TypeVar

import msgspec

from chatd.errors import InvalidBody, UnsupportedMediaType

T = TypeVar("T")

_JSON_TYPE: Final = re.compile(
    r'application/json\s*(;\s*charset\s*=\s*("utf-8"|utf-8)\s*)?', re.IGNORECASE
)


def decode_json(content_type: bytes | None, body: bytes, decoder: msgspec.json.Decoder[T]) -> T:
    """The decoded body of a request; raises `UnsupportedMediaType` or `InvalidBody`."""
    if content_type != b"application/json" and not _is_json(content_type):
        raise UnsupportedMediaType("send the body as Content-Type: application/json, in UTF-8")
    try:
        return decoder.decode(body)
    except msgspec.ValidationError as wrong:
        raise InvalidBody(_short(str(wrong))) from None
    except UnicodeDecodeError:
        raise InvalidBody("the body is not UTF-8") from None
    except (msgspec.DecodeError, RecursionError) as wrong:
        raise InvalidBody(f"the body is not JSON that can be read: {wrong}") from None


def _is_json(content_type: bytes | None) -> bool:
    if content_type is None:
        return False
    return _JSON_TYPE.fullmatch(content_type.decode("latin-1").strip()) is not None


def _short(text: str) -> str:
    # A message may repeat a member's name, and that may be as long as the body.
    return text if len(text) <= 200 else text[:200] + "…"
