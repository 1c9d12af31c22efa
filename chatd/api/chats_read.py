"""`GET /api/v1/chats`: read a page or a conversation, or wait for messages."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Annotated, Final

from msgspec import UNSET, Struct, UnsetType

from chatd.api import rendering
from chatd.api.calls import BUSY, ResponseSpec, call
from chatd.api.context import RequestContext
from chatd.api.fields import Count, CursorText, Message
from chatd.api.parameters import (
    PREFERRED_WAIT,
    HeaderValues,
    Parameters,
    cursor,
    integer,
    page_number,
    reject,
    seconds,
)
from chatd.api.responses import JSONResponse, Response
from chatd.domain import chats
from chatd.domain.chats import Chats, Polled
from chatd.errors import (
    CursorEpoch,
    InvalidQuery,
    PageNotFound,
    UserNotFound,
)
from chatd.model import BEGINNING, MAX_INTEGER, ConversationCursor, Cursor, Session, WakeReason

MAX_WAIT: Final = 55
"""Seconds; proxies commonly cut a silent connection at 60."""

OVERLOAD_RETRY_AFTER: Final = 5

_CURSOR: Final = "[a-z2-7]{8,32}-(0|[1-9][0-9]{0,15})"
_SINCE: Final = {"now": None, "0": BEGINNING}

_LIMIT: Final = integer(
    "limit", "Messages at most: 10 a page, 100 a poll and 50 of a conversation unless given.", 100
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


class PageMeta(Struct, forbid_unknown_fields=True):
    """Where in the inbox the page is; `took` is milliseconds of work."""

    count: Count
    next: int | None
    current_page: str
    took: Count
    previous: int | None
    cursor: CursorText

    @classmethod
    def of(cls, page: chats.Page, took: float) -> PageMeta:
        """The meta of a page; `took` is the seconds of work."""
        return cls(
            page.cursor.seq,
            page.page + 1 if page.page < page.pages else None,
            str(page.page),
            int(took * 1000),
            page.page - 1 if page.page > 1 else None,
            str(page.cursor),
        )


class Page(Struct, forbid_unknown_fields=True):
    """A page of the inbox, newest first."""

    meta: PageMeta
    messages: list[Message]


def _since(text: str) -> Cursor | None:
    return _SINCE[text] if text in _SINCE else Cursor.parse(text)


class PollQuery(Struct, frozen=True):
    """A long poll; `since` None is from now on."""

    since: Annotated[
        Cursor | None,
        cursor(
            "since",
            "The cursor of any earlier response, `0` (the beginning) or `now`.",
            _since,
            f"^(0|now|{_CURSOR})$",
        ),
    ] = None
    wait: Annotated[
        float | None,
        seconds("wait", "Seconds to wait for a message, up to 55; more is lowered to that."),
    ] = None
    limit: Annotated[int, _LIMIT] = 100
    preferred_wait: Annotated[int | None, PREFERRED_WAIT] = None


class PollMeta(Struct, forbid_unknown_fields=True):
    """How the wait ended; `waited` and `took` are milliseconds.

    `more` says that there are messages after the last one: poll again at once.
    """

    count: Count
    cursor: CursorText
    more: bool
    timed_out: bool
    waited: Count
    took: Count
    wait_applied: int | UnsetType = UNSET
    superseded: bool | UnsetType = UNSET

    @classmethod
    def of(cls, polled: Polled, took: float, wait: float) -> PollMeta:
        """The meta of a response to a poll with this `wait`; `took` is the seconds of work."""
        return cls(
            polled.count,
            str(polled.cursor),
            polled.more,
            polled.why is WakeReason.TIMEOUT,
            int(polled.waited * 1000),
            int(took * 1000),
            MAX_WAIT if wait > MAX_WAIT else UNSET,
            True if polled.why is WakeReason.SUPERSEDED else UNSET,
        )


class Poll(Struct, forbid_unknown_fields=True):
    """Messages after `since`, oldest first; empty when the wait is over."""

    meta: PollMeta
    messages: list[Message]


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


class ConversationMeta(Struct, forbid_unknown_fields=True):
    """`older` goes into the `before` of the next request; null at the beginning."""

    older: str | None
    took: Count


class Conversation(Struct, forbid_unknown_fields=True):
    """What the caller and another user sent each other, newest first."""

    meta: ConversationMeta
    messages: list[Message]


def _choose(texts: Mapping[str, str], headers: HeaderValues) -> type[Struct]:
    """The kind of query, by the parameters that are present."""
    if "with" in texts:
        reject(texts, ("page", "at", "since", "wait"), "the parameter with")
        return ConversationQuery
    if "before" in texts:
        raise InvalidQuery("before goes together with the parameter with")
    if "since" in texts or "wait" in texts:
        if "page" in texts or "at" in texts:
            reject(texts, ("page", "at"), "since or wait")
        return PollQuery
    if "page" in texts or "at" in texts:
        return PageQuery
    preferred = PREFERRED_WAIT.parse(headers(b"prefer"))
    return PageQuery if preferred is None else PollQuery


class ReadCalls:
    """The call that reads messages and waits for them."""

    def __init__(
        self,
        chats: Chats,
        render: rendering.RenderMessage,
        *,
        seconds: Callable[[], float],
        retry_jitter: Callable[[], int],
    ) -> None:
        self._chats = chats
        self._render = render
        self._seconds = seconds
        self._retry_jitter = retry_jitter

    @call(
        "GET",
        "/api/v1/chats",
        summary="Read messages, or wait for them",
        description="One path for three queries. A page of the inbox, newest first (`page`, "
        "`limit`, `at`). The long poll, oldest first (`since`, `wait`, `limit`): answered as soon "
        "as there is a message after `since`. A conversation, newest first (`with`, `before`, "
        "`limit`). They cannot be combined.",
        tag="Chats",
        parameters=Parameters(PageQuery, PollQuery, ConversationQuery, choose=_choose),
        responses={
            200: ResponseSpec(
                "A page, the result of a poll, or a conversation.",
                (Page, Poll, Conversation),
                {
                    "Link": "The next and the previous page, pinned to this moment (RFC 8288).",
                    "Retry-After": "After an empty poll: the seconds to wait before the next one.",
                    "Preference-Applied": "The wait requested by `Prefer` (RFC 7240).",
                },
            )
        },
        raises=(PageNotFound, UserNotFound, CursorEpoch, *BUSY),
        authenticated=True,
    )
    def get_chats(
        self,
        context: RequestContext,
        session: Session,
        query: PageQuery | PollQuery | ConversationQuery,
    ) -> Awaitable[Response]:
        if isinstance(query, PollQuery):
            return self._poll(context, session, query)
        if isinstance(query, PageQuery):
            return self._page(session, query)
        return self._conversation(session, query)

    async def _page(self, session: Session, query: PageQuery) -> Response:
        began = self._seconds()
        page = await self._chats.page(session, query.page, query.limit, query.at)
        meta = PageMeta.of(page, self._seconds() - began)
        links = []
        if meta.next is not None:
            links.append(_link(meta.next, query.limit, page.cursor, b"next"))
        if meta.previous is not None:
            links.append(_link(meta.previous, query.limit, page.cursor, b"prev"))
        headers = {b"Link": b", ".join(links)} if links else None
        return JSONResponse(200, rendering.messages(meta, page.messages, self._render), headers)

    async def _poll(self, context: RequestContext, session: Session, query: PollQuery) -> Response:
        began = self._seconds()
        preferred = query.preferred_wait
        wait = float(preferred or 0) if query.wait is None else query.wait
        polled = await self._chats.poll(
            session, query.since, query.limit, min(wait, MAX_WAIT), context
        )
        meta = PollMeta.of(polled, self._seconds() - began - polled.waited, wait)
        headers = {}
        if preferred is not None:
            headers[b"Preference-Applied"] = b"wait=%d" % min(preferred, MAX_WAIT)
        if polled.why is WakeReason.OVERLOAD:
            headers[b"Retry-After"] = b"%d" % OVERLOAD_RETRY_AFTER
        elif polled.why is WakeReason.DRAIN:
            headers[b"Retry-After"] = b"%d" % self._retry_jitter()
            headers[b"Connection"] = b"close"
        return JSONResponse(200, rendering.messages(meta, polled.messages, self._render), headers)

    async def _conversation(self, session: Session, query: ConversationQuery) -> Response:
        began = self._seconds()
        found = await self._chats.conversation(session, query.peer, query.limit, query.before)
        older = None if found.older is None else str(found.older)
        meta = ConversationMeta(older, int((self._seconds() - began) * 1000))
        return JSONResponse(200, rendering.messages(meta, found.messages, self._render))


def _link(page: int, limit: int, at: Cursor, relation: bytes) -> bytes:
    # RFC 8288; pinned, so that the pages do not shift while messages arrive.
    where = (page, limit, str(at).encode("ascii"), relation)
    return b'</api/v1/chats/?page=%d&limit=%d&at=%b>; rel="%b"' % where
