"""JSON request bodies."""

from __future__ import annotations

import json
import re
from functools import cache
from typing import Any, Final, Generic, TypeVar

import msgspec
from msgspec import Struct, structs

from chatd.errors import InvalidBody, UnsupportedMediaType

T = TypeVar("T", bound=Struct)

_JSON_TYPE: Final = re.compile(
    r'application/json\s*(;\s*charset\s*=\s*("utf-8"|utf-8)\s*)?', re.IGNORECASE
)


class BodyDecoder(Generic[T]):
    """Decodes request bodies of a type, which forbids unknown members."""

    __slots__ = ("_decode", "_required")

    def __init__(self, kind: type[T]) -> None:
        self._decode = msgspec.json.Decoder(kind).decode
        self._required = _required_members(kind)

    def decode(self, content_type: bytes | None, body: bytes) -> T:
        """The decoded body of a request; raises `UnsupportedMediaType` or `InvalidBody`."""
        if content_type != b"application/json" and not _is_json(content_type):
            raise UnsupportedMediaType("send the body as Content-Type: application/json, in UTF-8")
        try:
            decoded = self._decode(body)
        except msgspec.ValidationError as wrong:
            raise InvalidBody(_short(str(wrong))) from None
        except UnicodeDecodeError:
            raise InvalidBody("the body is not UTF-8") from None
        except (msgspec.DecodeError, RecursionError) as wrong:
            raise InvalidBody(f"the body is not JSON that can be read: {wrong}") from None
        # msgspec takes the last of two members of one name, others the first. Every member has a
        # colon and all required ones are there, so few bodies have to be looked at again.
        if body.count(b":") > self._required:
            json.loads(body.decode("utf-8"), object_pairs_hook=_distinct)
        return decoded


@cache
def _required_members(kind: type[Struct]) -> int:
    return sum(field.required for field in structs.fields(kind))


def _distinct(members: list[tuple[str, Any]]) -> None:
    names = [name for name, _ in members]
    if len(set(names)) < len(names):
        repeated = next(name for name in names if names.count(name) > 1)
        raise InvalidBody(f"the member {_short(repeated)!r} is given more than once")


def _is_json(content_type: bytes | None) -> bool:
    if content_type is None:
        return False
    return _JSON_TYPE.fullmatch(content_type.decode("latin-1").strip()) is not None


def _short(text: str) -> str:
    # A message may repeat a member's name, and that may be as long as the body.
    return text if len(text) <= 200 else text[:200] + "…"
