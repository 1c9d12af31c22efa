"""`GET /api/v1/chats`: read a page or a conversation, or wait for messages."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from msgspec import UNSET, Struct, UnsetType
from twisted.internet.interfaces import IAddress, IReactorTime

from chatd.api import rendering
from chatd.api.calls import BUSY, ResponseSpec, call
from chatd.api.changes import AnyChange, render_change
from chatd.api.chats_query import (
    MAX_WAIT,
    ConversationQuery,
    PageQuery,
    PollQuery,
    StreamQuery,
    choose,
)
from chatd.api.client_address import TrustedProxies
from chatd.api.context import RequestContext
from chatd.api.fields import Count, CursorText, Message
from chatd.api.parameters import Parameters
from chatd.api.responses import JSONResponse, Response, StreamResponse
from chatd.api.stream_formats import JSON_LINES, SERVER_SENT_EVENTS, negotiate
from chatd.api.stream_writer import OVERLOAD_RETRY_AFTER, KeepAlives, StreamWriter
from chatd.domain import chats
from chatd.domain.address_polls import AddressPolls
from chatd.domain.chats import Chats
from chatd.domain.poll import Polled
from chatd.errors import CursorEpoch, CursorExpired, PageNotFound, UserNotFound
from chatd.model import Cursor, Scope, Session, WakeReason

PARAMETERS: Final = Parameters(PageQuery, PollQuery, StreamQuery, ConversationQuery, choose=choose)


class PageMeta(Struct, forbid_unknown_fields=True):
    """Where in the inbox the page is; `took` is milliseconds of work.

    `limit` is there if the messages asked for, more than ten, were too large for one response:
    fewer were sent, and the page numbers are those of pages of this size. Send it as `limit` with
    the next `page`, or follow `Link`, which has both.
    """

    count: Count
    next: int | None
    current_page: str
    took: Count
    previous: int | None
    cursor: CursorText
    limit: int | UnsetType = UNSET

    @classmethod
    def of(cls, page: chats.Page, took: float, limit: int) -> PageMeta:
        """The meta of a page asked for with `limit`; `took` is the seconds of work."""
        return cls(
            page.count,
            page.page + 1 if page.page < page.pages else None,
            str(page.page),
            int(took * 1000),
            page.page - 1 if page.page > 1 else None,
            str(page.cursor),
            UNSET if page.limit == limit else page.limit,
        )


class Page(Struct, forbid_unknown_fields=True):
    """A page of the inbox, newest first."""

    meta: PageMeta
    messages: list[Message]


class PollMeta(Struct, forbid_unknown_fields=True):
    """How the wait ended; `waited` and `took` are milliseconds.

    `more` says that there are messages after the last one: poll again at once. Large messages may
    be fewer than `limit`.
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
    """Messages after `since`, oldest first; empty when the wait is over.

    `changes` is present if they were asked for: what is different from what `since` saw.
    """

    meta: PollMeta
    messages: list[Message]
    changes: list[AnyChange] | UnsetType = UNSET


class ConversationMeta(Struct, forbid_unknown_fields=True):
    """`older` goes into the `before` of the next request; null at the beginning. Large messages may
    be fewer than `limit`.

    `peer_read` and `peer_delivered` are the places, in the other's inbox, of the caller's last
    messages that they have read, and that were delivered; 0 for none.
    """

    older: str | None
    peer_read: Count
    peer_delivered: Count
    took: Count


class Conversation(Struct, forbid_unknown_fields=True):
    """What the caller and another user sent each other, newest first."""

    meta: ConversationMeta
    messages: list[Message]


class ReadCalls:
    """The call that reads messages and waits for them.

    `touch` is called with the sessions of open streams, again and again.
    """

    def __init__(
        self,
        chats: Chats,
        render: rendering.EncodedMessageCache,
        *,
        clock: IReactorTime,
        retry_jitter: Callable[[], int],
        address_polls: AddressPolls,
        proxies: TrustedProxies,
        touch: Callable[[Session], None] = lambda session: None,
    ) -> None:
        self.address_polls = address_polls
        self._proxies = proxies
        self._chats = chats
        self._render = render
        self._seconds = clock.seconds
        self._retry_jitter = retry_jitter
        self._keep_alives = KeepAlives(clock, touch)

    @call(
        "GET",
        "/api/v1/chats",
        summary="Read messages, or wait for them",
        description="One path for four queries, which cannot be combined. A page of the inbox, "
        "newest first (`page`, `limit`, `at`). The long poll, oldest first (`since`, `wait`, "
        "`limit`): answered as soon as there is a message after `since`. A stream, oldest first "
        "(`since`, and `Accept: text/event-stream` or `application/x-ndjson`): the poll without "
        "end. A conversation, newest first (`with`, `before`, `limit`). With `changes=true` polls "
        "and streams also tell what the caller's other devices sent and read, and what became of "
        "the caller's messages.",
        tag="Chats",
        parameters=PARAMETERS,
        responses={
            200: ResponseSpec(
                "A page, the result of a poll, or a conversation.",
                (Page, Poll, Conversation),
                {
                    "Link": "The next and the previous page, pinned to this moment (RFC 8288).",
                    "Retry-After": "After an empty poll: the seconds to wait before the next one.",
                    "Preference-Applied": "The wait requested by `Prefer` (RFC 7240).",
                },
                streams={
                    SERVER_SENT_EVENTS.media_type.decode(): "Events `message` (data: a message; "
                    "id: the cursor after it), with `changes=true` also `change`, and before the "
                    "end `drain`, `superseded` or `error`; a comment every 15 seconds.",
                    JSON_LINES.media_type.decode(): "Lines `{cursor, message}`, with "
                    "`changes=true` also `{cursor, change}`, and before the end `{drain, "
                    "retry_after}`, `{superseded}` or `{error}`; `{keepalive}` at the beginning "
                    "and every 15 seconds.",
                },
            )
        },
        raises=(PageNotFound, UserNotFound, CursorEpoch, CursorExpired, *BUSY),
        authenticated=True,
        scope=Scope.READ,
    )
    def get_chats(
        self,
        context: RequestContext,
        session: Session,
        query: PageQuery | PollQuery | StreamQuery | ConversationQuery,
    ) -> Awaitable[Response]:
        if isinstance(query, PollQuery):
            return self._poll(context, session, query)
        if isinstance(query, StreamQuery):
            return self._stream(context, session, query)
        if isinstance(query, PageQuery):
            return self._page(session, query)
        return self._conversation(session, query)

    async def _page(self, session: Session, query: PageQuery) -> Response:
        began = self._seconds()
        page = await self._chats.page(session, query.page, query.limit, query.at)
        return self.page_response(query, page, self._seconds() - began)

    def page_response(self, query: PageQuery, page: chats.Page, took: float) -> JSONResponse:
        """The response to a page that took so many seconds of work."""
        meta = PageMeta.of(page, took, query.limit)
        links = []
        if meta.next is not None:
            links.append(_link(meta.next, page.limit, page.cursor, b"next"))
        if meta.previous is not None:
            links.append(_link(meta.previous, page.limit, page.cursor, b"prev"))
        headers = {b"Link": b", ".join(links)} if links else None
        return JSONResponse(200, rendering.messages(meta, self._render.all(page.messages)), headers)

    async def _poll(self, context: RequestContext, session: Session, query: PollQuery) -> Response:
        began = self._seconds()
        place = self.enter(context) if query.wait_seconds else None
        try:
            polled = await self._chats.poll(
                session,
                query.since,
                query.limit,
                query.wait_seconds,
                context,
                changes=bool(query.changes),
            )
        finally:
            self.address_polls.leave(place)
        context.outcome = polled.why.value
        return self.poll_response(query, polled, self._seconds() - began - polled.waited)

    def enter(self, context: RequestContext) -> str | None:
        """Count a poll, a stream or the like by its client's address; returns where, if it is
        counted."""
        peer = context.request.getClientAddress()
        place = self.place(peer, context.header_values(b"x-forwarded-for"))
        self.address_polls.enter(place)
        return place

    def place(self, peer: IAddress | None, forwarded: Sequence[bytes]) -> str | None:
        """Where polls from `peer` with these values of X-Forwarded-For are counted, if they are."""
        return self.address_polls.place(self._proxies.behind_proxy(peer, forwarded))

    def poll_response(self, query: PollQuery, polled: Polled, took: float) -> JSONResponse:
        """The response to a poll that took so many seconds of work."""
        meta = PollMeta.of(polled, took, query.requested_wait)
        headers = {}
        if query.preferred_wait is not None:
            headers[b"Preference-Applied"] = b"wait=%d" % min(query.preferred_wait, MAX_WAIT)
        if polled.why is WakeReason.OVERLOAD:
            headers[b"Retry-After"] = b"%d" % OVERLOAD_RETRY_AFTER
        elif polled.why is WakeReason.DRAIN:
            headers[b"Retry-After"] = b"%d" % self._retry_jitter()
            headers[b"Connection"] = b"close"
        document = rendering.messages(meta, self._render.all(polled.messages))
        if query.changes:
            changes = polled.found.changes if polled.found is not None else ()
            items = b",".join([render_change(each, self._render) for each in changes])
            document = b'%b,"changes":[%b]}\n' % (document[:-2], items)
        return JSONResponse(200, document, headers)

    async def _stream(
        self, context: RequestContext, session: Session, query: StreamQuery
    ) -> Response:
        format = negotiate(context.header_values(b"accept"))
        assert format is not None
        since = query.since if query.last_event_id is None else query.last_event_id
        place = self.enter(context)
        try:
            stream, inbox = await self._chats.stream(
                session, since, context, changes=bool(query.changes)
            )
        except BaseException:
            self.address_polls.leave(place)
            raise
        writer = StreamWriter(
            context,
            stream,
            format,
            render=self._render,
            keep_alives=self._keep_alives,
            retry_jitter=self._retry_jitter,
        )

        def start(ended: Callable[[], None]) -> None:
            def leave() -> None:
                self.address_polls.leave(place)
                ended()

            writer.start(inbox, leave)

        return StreamResponse(start)

    async def _conversation(self, session: Session, query: ConversationQuery) -> Response:
        began = self._seconds()
        found = await self._chats.conversation(session, query.peer, query.limit, query.before)
        older = None if found.older is None else str(found.older)
        positions = found.positions
        took = int((self._seconds() - began) * 1000)
        meta = ConversationMeta(older, positions.read, positions.delivered, took)
        return JSONResponse(200, rendering.messages(meta, self._render.all(found.messages)))


def _link(page: int, limit: int, at: Cursor, relation: bytes) -> bytes:
    # RFC 8288; pinned, so that the pages do not shift while messages arrive.
    where = (page, limit, str(at).encode("ascii"), relation)
    return b'</api/v1/chats/?page=%d&limit=%d&at=%b>; rel="%b"' % where
