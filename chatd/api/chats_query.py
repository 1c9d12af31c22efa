"""The parameters of `GET /api/v1/chats`: four queries on one path."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Final

from msgspec import Struct

from chatd.api.parameters import (
    LAST_EVENT_ID,
    PREFERRED_WAIT,
    HeaderValues,
    boolean,
    cursor,
    integer,
    page_number,
    reject,
    seconds,
)
from chatd.api.stream_formats import negotiate
from chatd.errors import InvalidQuery
from chatd.model import BEGINNING, MAX_INTEGER, ConversationCursor, Cursor

MAX_WAIT: Final = 55
"""Seconds; proxies commonly cut a silent connection at 60."""

_NUMBER: Final = "(0|[1-9][0-9]{0,15})"
_STAMP: Final = "(0|[1-9a-f][0-9a-f]{0,13})"
_CURSOR: Final = f"[a-z2-7]{{8,32}}-{_NUMBER}(-{_STAMP})?([.]{_NUMBER}([.]{_NUMBER}[.]{_NUMBER})?)?"
_SINCE: Final = {"now": None, "0": BEGINNING}

_LIMIT: Final = integer(
    "limit",
    "Messages at most: 10 a page, 100 a poll and 50 of a conversation unless given. If more than "
    "ten are large, there may be fewer: `limit`, `more` or `older` of `meta` tell.",
    100,
)


class PageQuery(Struct, frozen=True):
    """A page of the inbox."""

    page: Annotated[int, page_number("page", "Which page, from 1.")] = 1
    at: Annotated[
        Cursor | None,
        cursor(
            "at", "A cursor: the page of the inbox as it was there.", Cursor.parse, f"^{_CURSOR}$"
        ),
    ] = None
    limit: Annotated[int, _LIMIT] = 10


def _since(text: str) -> Cursor | None:
    return _SINCE[text] if text in _SINCE else Cursor.parse(text)


_SINCE_PARAMETER: Final = cursor(
    "since",
    "The cursor of any earlier response, `0` (the beginning) or `now`.",
    _since,
    f"^(0|now|{_CURSOR})$",
)
_WAIT: Final = seconds("wait", "Seconds to wait for a message, up to 55; more is lowered to that.")


_CHANGES: Final = boolean("changes", "Whether to include changes, and to wait for them, too.")


class PollQuery(Struct, frozen=True):
    """A long poll; `since` None is from now on."""

    since: Annotated[Cursor | None, _SINCE_PARAMETER] = None
    wait: Annotated[float | None, _WAIT] = None
    limit: Annotated[int, _LIMIT] = 100
    changes: Annotated[bool | None, _CHANGES] = None
    preferred_wait: Annotated[int | None, PREFERRED_WAIT] = None

    @property
    def requested_wait(self) -> float:
        """The wait that the client wants, in seconds; the parameter takes precedence."""
        return float(self.preferred_wait or 0) if self.wait is None else self.wait

    @property
    def wait_seconds(self) -> float:
        """How long the poll may be held."""
        return min(self.requested_wait, MAX_WAIT)


class StreamQuery(Struct, frozen=True):
    """A stream; what ends a poll or limits it is checked and has no effect."""

    since: Annotated[Cursor | None, _SINCE_PARAMETER] = None
    wait: Annotated[float | None, _WAIT] = None
    limit: Annotated[int, _LIMIT] = 100
    changes: Annotated[bool | None, _CHANGES] = None
    last_event_id: Annotated[Cursor | None, LAST_EVENT_ID] = None


class ConversationQuery(Struct, frozen=True):
    """A query for the messages between the caller and a peer."""

    peer: Annotated[
        int,
        integer("with", "A user's id: what the caller and they sent each other.", MAX_INTEGER),
    ]
    before: Annotated[
        ConversationCursor | None,
        cursor(
            "before",
            "The `older` of an earlier response: the messages before it.",
            ConversationCursor.parse,
        ),
    ] = None
    limit: Annotated[int, _LIMIT] = 50


def choose(texts: Mapping[str, str], headers: HeaderValues) -> type[Struct]:
    """The kind of query, by the parameters that are present and `Accept`."""
    if negotiate(headers(b"accept")) is not None:
        reject(texts, ("with", "before", "page", "at"), "a stream, which Accept asks for")
        return StreamQuery
    # Some clients send all parameters, also those that are false.
    changes = texts.get("changes", "false") != "false"
    if "with" in texts:
        others = ("page", "at", "since", "wait", *(("changes",) if changes else ()))
        reject(texts, others, "the parameter with")
        return ConversationQuery
    if "before" in texts:
        raise InvalidQuery("before goes together with the parameter with")
    if "since" in texts or "wait" in texts or changes:
        if "page" in texts or "at" in texts:
            reject(texts, ("page", "at"), "since, wait or changes")
        return PollQuery
    if "page" in texts or "at" in texts:
        return PageQuery
    preferred = PREFERRED_WAIT.parse(headers(b"prefer"))
    return PageQuery if preferred is None else PollQuery
