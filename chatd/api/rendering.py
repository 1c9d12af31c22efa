"""What goes over the wire: request bodies and queries in, the seed's JSON shapes out."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache
from time import gmtime, strftime
from typing import Annotated, Final, TypeVar
from urllib.parse import unquote_to_bytes

import msgspec
from msgspec import Meta, Struct
from twisted.web.server import Request

from chatd.domain.chats import Conversation, Page, Polled
from chatd.errors import InvalidBody, InvalidHeader, InvalidQuery, UnsupportedMediaType
from chatd.model import MAX_INTEGER, Account, IssuedToken, Message, WakeReason

T = TypeVar("T")

_JSON_TYPE: Final = re.compile(
    r'application/json\s*(;\s*charset\s*=\s*("utf-8"|utf-8)\s*)?', re.IGNORECASE
)
_DIGITS: Final = re.compile(r"[0-9]+")
_DECIMAL: Final = re.compile(r"[0-9]+(\.[0-9]+)?")
_KEY: Final = re.compile(r"[!-~]{1,255}")
_PREFERENCE: Final = re.compile(r'\s*wait\s*=\s*("?)([0-9]{1,400})\1\s*(;.*)?', re.IGNORECASE)

_SEQS: Final = MAX_INTEGER + 1

Encode = Callable[[Message], bytes]

UserId = Annotated[int, Meta(ge=1, le=MAX_INTEGER)]


# What the domain holds these to, told in the API description; decoding does not look at it.
Username = Annotated[str, Meta(extra_json_schema={"pattern": "^[A-Za-z0-9._-]{1,32}$"})]
Email = Annotated[
    str, Meta(extra_json_schema={"pattern": "^[^@\\u0000]+@[^@\\u0000]+$", "maxLength": 254})
]
NewPassword = Annotated[str, Meta(extra_json_schema={"minLength": 5, "maxLength": 1024})]
Text = Annotated[
    str,
    Meta(
        description="Not blank, without U+0000, up to 16 KiB of UTF-8 unless configured otherwise.",
        extra_json_schema={
            "minLength": 1,
            "maxLength": 16384,
            "pattern": "^[^\\u0000]*[^\\u0000\\s\\u0085][^\\u0000]*$",
        },
    ),
]


class Registration(Struct, forbid_unknown_fields=True, frozen=True):
    """The body of `POST /users/`."""

    username: Username
    email: Email
    password: NewPassword


class LogIn(Struct, forbid_unknown_fields=True, frozen=True):
    """The body of `POST /tokens/`."""

    username: str
    password: str


class Send(Struct, forbid_unknown_fields=True, frozen=True):
    """The body of `POST /chats/`."""

    user_id: UserId
    message: Text


def body(request: Request, decoder: msgspec.json.Decoder[T]) -> T:
    """The decoded JSON body; raises `UnsupportedMediaType` or `InvalidBody`."""
    kind = request.getHeader(b"content-type")
    if kind is None or _JSON_TYPE.fullmatch(kind.decode("latin-1").strip()) is None:
        raise UnsupportedMediaType("send the body as Content-Type: application/json, in UTF-8")
    assert request.content is not None
    try:
        return decoder.decode(request.content.read())
    except msgspec.ValidationError as wrong:
        raise InvalidBody(_short(str(wrong))) from None
    except UnicodeDecodeError:
        raise InvalidBody("the body is not UTF-8") from None
    except (msgspec.DecodeError, RecursionError) as wrong:
        raise InvalidBody(f"the body is not JSON that can be read: {wrong}") from None


def _short(text: str) -> str:
    # A message may repeat a member's name, and that may be as long as the body.
    return text if len(text) <= 200 else text[:200] + "…"


def query(request: Request, *names: str) -> dict[str, str]:
    """The named query parameters that are there; others are ignored.

    Raises `InvalidQuery` for one that is repeated or is not UTF-8.
    """
    found: dict[str, str] = {}
    # Not `request.args`: a held request would keep what it was parsed into.
    _, _, raw = request.uri.partition(b"?")
    if not raw:
        return found
    # Most have nothing to decode, which need not be found out part by part.
    plain = raw.isascii() and b"%" not in raw and b"+" not in raw
    text_of: Callable[[bytes], str | None] = bytes.decode if plain else _form_text
    for part in raw.split(b"&"):
        key, _, value = part.partition(b"=")
        name = text_of(key)
        if name not in names:
            continue
        if name in found:
            raise InvalidQuery(f"{name}: given more than once")
        text = text_of(value)
        if text is None:
            raise InvalidQuery(f"{name}: not UTF-8")
        found[name] = text
    return found


def _form_text(octets: bytes) -> str | None:
    """What a form has encoded (WHATWG URL, urlencoded parsing); None if it is not UTF-8."""
    if b"%" in octets or b"+" in octets:
        octets = unquote_to_bytes(octets.replace(b"+", b" "))
    try:
        return octets.decode("utf-8")
    except UnicodeDecodeError:
        return None


def whole(given: dict[str, str], name: str, default: int, largest: int) -> int:
    """A whole number from 1 to `largest`; raises `InvalidQuery`."""
    text = given.get(name)
    if text is None:
        return default
    # The length bounds the work of int(): no number allowed here has more digits.
    if _DIGITS.fullmatch(text) is None or len(text) > 400 or not 1 <= int(text) <= largest:
        raise InvalidQuery(f"{name}: a whole number from 1 to {largest}")
    return int(text)


def user_id(given: dict[str, str], name: str) -> int:
    """An account's id, 1 to 2**53 - 1; raises `InvalidQuery`."""
    return whole(given, name, 0, MAX_INTEGER)


def page_number(given: dict[str, str]) -> int:
    """The page asked for, from 1; any number is one, however far past the end."""
    text = given.get("page", "1")
    if _DIGITS.fullmatch(text) is None or not text.strip("0"):
        raise InvalidQuery("page: a whole number from 1 up")
    digits = text.lstrip("0")
    return int(digits) if len(digits) <= 16 else MAX_INTEGER


def seconds(given: dict[str, str], name: str) -> float:
    """A number of seconds, 0 or more, with or without a fraction; raises `InvalidQuery`."""
    if _DECIMAL.fullmatch(given[name]) is None:
        raise InvalidQuery(f"{name}: seconds, as decimal digits with an optional fraction")
    return float(given[name])


def preferred_wait(request: Request) -> int | None:
    """The seconds of `Prefer: wait=N` (RFC 7240 section 4.3), None if absent or malformed."""
    if request.getHeader(b"prefer") is None:
        return None
    for field in request.requestHeaders.getRawHeaders(b"prefer", ()):
        for preference in field.decode("latin-1").split(","):
            if preference.partition("=")[0].strip().lower() == "wait":
                # Section 2: the first of several counts.
                match = _PREFERENCE.fullmatch(preference)
                return None if match is None else min(int(match[2]), MAX_INTEGER)
    return None


def idempotency_key(request: Request) -> str | None:
    """The `Idempotency-Key`, or None; raises `InvalidHeader`."""
    if request.getHeader(b"idempotency-key") is None:
        return None
    fields = request.requestHeaders.getRawHeaders(b"idempotency-key", [b""])
    key = fields[0].decode("latin-1")
    if len(fields) > 1 or _KEY.fullmatch(key) is None:
        raise InvalidHeader("Idempotency-Key: one, of 1 to 255 visible ASCII characters")
    return key


def timestamp(microseconds: int) -> str:
    """`YYYY-MM-DDTHH:MM:SSZ`, as in the seed."""
    return _second(microseconds // 1_000_000)


@lru_cache(4096)
def _second(second: int) -> str:
    return strftime("%Y-%m-%dT%H:%M:%SZ", gmtime(second))


_encode_text = msgspec.json.Encoder().encode


def message(value: Message) -> bytes:
    """`{"seq","sent_by","message","sent_at","received_by"}`."""
    return b'{"seq":%d,"sent_by":%d,"message":%b,"sent_at":"%b","received_by":%d}' % (
        value.seq,
        value.sent_by,
        _encode_text(value.text),
        timestamp(value.sent_at).encode("ascii"),
        value.received_by,
    )


class EncodedMessageCache:
    """`message`, made once for all who are told of it: the sender, polls and pages.

    Messages never change, and no two of one database have the inbox and the seq in common. Those
    that were told last are kept, long ones excepted: about 5 MB at most.
    """

    KEPT: Final = 8192
    LARGEST: Final = 512

    def __init__(self) -> None:
        # By numbers, not pairs of them, which Python's garbage collector would look through.
        self._made: dict[int, bytes] = {}

    @property
    def kept(self) -> int:
        """How many are kept now."""
        return len(self._made)

    def __call__(self, value: Message) -> bytes:
        place = value.received_by * _SEQS + value.seq
        made = self._made.get(place)
        if made is None:
            made = message(value)
            if len(made) <= self.LARGEST:
                if len(self._made) >= self.KEPT:
                    self._made.clear()
                self._made[place] = made
        return made


def account(value: Account) -> bytes:
    """`{"id","username","email","date_joined","last_seen_at"}`."""
    return msgspec.json.encode(
        {
            "id": value.id,
            "username": value.username,
            "email": value.email,
            "date_joined": timestamp(value.date_joined),
            "last_seen_at": (None if value.last_seen_at is None else timestamp(value.last_seen_at)),
        }
    )


def token(value: IssuedToken) -> bytes:
    """`{"token","user_id","created_at"}`."""
    return msgspec.json.encode(
        {
            "token": value.token,
            "user_id": value.user_id,
            "created_at": timestamp(value.created_at),
        }
    )


def page(value: Page, took: float, encode: Encode = message) -> bytes:
    """The seed's page; `took` in seconds."""
    return _with_meta(
        {
            "count": value.cursor.seq,
            "next": value.page + 1 if value.page < value.pages else None,
            "current_page": str(value.page),
            "took": int(took * 1000),
            "previous": value.page - 1 if value.page > 1 else None,
            "cursor": str(value.cursor),
        },
        value.messages,
        encode,
    )


def polled(
    value: Polled, took: float, wait_applied: float | None, encode: Encode = message
) -> bytes:
    """The answer of a poll; `took` in seconds, `wait_applied` only where the wait was lowered."""
    meta: dict[str, object] = {
        "count": value.count,
        "cursor": str(value.cursor),
        "more": value.more,
        "timed_out": value.why is WakeReason.TIMEOUT,
        "waited": int(value.waited * 1000),
        "took": int(took * 1000),
    }
    if wait_applied is not None:
        meta["wait_applied"] = wait_applied
    if value.why is WakeReason.SUPERSEDED:
        meta["superseded"] = True
    return _with_meta(meta, value.messages, encode)


def conversation(value: Conversation, took: float, encode: Encode = message) -> bytes:
    """The answer to `with=`; `took` in seconds."""
    older = None if value.older is None else str(value.older)
    return _with_meta({"older": older, "took": int(took * 1000)}, value.messages, encode)


def _with_meta(meta: dict[str, object], messages: tuple[Message, ...], encode: Encode) -> bytes:
    return b'{"meta":%b,"messages":[%b]}' % (
        msgspec.json.encode(meta),
        b",".join([encode(each) for each in messages]),
    )
