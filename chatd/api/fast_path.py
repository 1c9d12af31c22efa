"""The frequent calls without a `Request`, a coroutine and a route.

Polls, pages and sends by bearer token are most of what the daemon does. Where nothing about such a
request is out of the ordinary, it is understood, answered and counted here, from the same
parameters, by the same domain and with the same rendering as by `chatd.api.dispatch`; everything
else goes there, before it has had an effect. tests/api/test_fast_path.py holds that both answer
alike.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from sys import intern
from typing import Any, Final, TypeVar

from msgspec import Struct, structs
from twisted.python.failure import Failure

from chatd.api.authentication import credentials
from chatd.api.bodies import BodyDecoder
from chatd.api.chats_query import PageQuery, PollQuery
from chatd.api.chats_read import PARAMETERS, ReadCalls
from chatd.api.chats_send import SEND_PARAMETERS, Send, SendCalls
from chatd.api.context import repeated_header
from chatd.api.dispatch import Dispatch
from chatd.api.pending_requests import Pending, PendingPoll, PendingSend, Responder
from chatd.api.stream_formats import negotiate
from chatd.api.unknown_parameters import unknown_parameters
from chatd.domain.accounts import Accounts, token_digest
from chatd.domain.chats import Chats
from chatd.errors import DomainError
from chatd.http.fast_handler import FastChannel
from chatd.http.head import Head
from chatd.http.request_headers import HeaderBlock
from chatd.http.request_ids import RequestIds
from chatd.model import LOCAL, Cursor, Scope, Session

_PATHS: Final = {b"/api/v1/chats/", b"/api/v1/chats"}

_UNUSUAL: Final = re.compile(rb"\r\n(?:x-request-id|prefer|last-event-id|upgrade):")
"""Headers, in lower case, that have a request go the ordinary way."""

_SINCE: Final = re.compile(
    rb"(?<![^&])since=([a-z2-7]{8,32})-(0|[1-9][0-9]{0,14})-(0|[1-9a-f][0-9a-f]{0,12})(?![^&])"
)
"""A cursor as the parameter `since`, at a place where the parser of queries finds it, too."""

# Numbers: the operators of `Scope` are functions.
_READ: Final = Scope.READ.value
_SEND: Final = Scope.SEND.value

Q = TypeVar("Q")

MAX_KNOWN_QUERIES: Final = 1000
MAX_KNOWN_LENGTH: Final = 200


class Caller(Struct, frozen=True, gc=False):
    """What a block of header lines says: whose token, whether the body is JSON, and whether there
    is an Idempotency-Key.
    """

    digest: bytes
    is_json: bool
    has_key: bool
    place: str | None = None
    """Where polls are counted, if they are."""
    address: str = LOCAL
    """Where texts are counted, if the body is JSON."""


UNUSUAL: Final = object()
"""The memo of a block that has a request go the ordinary way."""


def understand(block: HeaderBlock, *, cors: bool = False) -> object:
    """The `Caller` of a block, or `UNUSUAL`; with `cors`, responses depend on the origin."""
    lines = block.block.lower()
    if block.coding is not None or block.expects or block.close or _UNUSUAL.search(lines):
        return UNUSUAL
    if cors and b"\r\norigin:" in lines:
        return UNUSUAL
    if repeated_header(lines) is not None:
        return UNUSUAL
    authorization = block.value(b"authorization")
    scheme, token = credentials(authorization)
    if scheme != b"bearer" or not token:
        return UNUSUAL
    if negotiate(block.values(b"accept")) is not None:
        return UNUSUAL
    is_json = block.value(b"content-type") == b"application/json"
    caller = Caller(token_digest(token), is_json, bool(block.values(b"idempotency-key")))
    # There is one block for each held poll.
    block.forget_values()
    return caller


class FastPath:
    """The `chatd.http.fast_handler.FastHandler` of the API."""

    def __init__(
        self,
        dispatch: Dispatch,
        accounts: Accounts,
        chats: Chats,
        reads: ReadCalls,
        sends: SendCalls,
        *,
        seconds: Callable[[], float],
        request_ids: RequestIds,
        cors: bool = False,
    ) -> None:
        self._responder = Responder(dispatch, reads, sends, seconds, request_ids)
        self._reads = reads
        self._sends = sends
        self._seconds = seconds
        self._accounts = accounts
        self._chats = chats
        # Poll queries by their text without the cursor.
        self._known_rests: dict[bytes, PollQuery] = {}
        # Page queries by their text.
        self._known_pages: dict[bytes, PageQuery] = {}
        self._decoder = BodyDecoder(Send)
        self._cors = cors

    def __call__(self, channel: Any, head: Head, body: bytes) -> bool:
        """See `FastHandler`."""
        block = head.headers
        caller = block.memo
        if caller is None:
            caller = block.memo = self._understand(block, channel)
        path, _, query = head.target.partition(b"?")
        if caller is UNUSUAL or path not in _PATHS or head.version != b"HTTP/1.1":
            return False
        if not channel.keep_alive():
            return False
        assert isinstance(caller, Caller)
        method = head.method
        if method == b"GET":
            return not body and self._read(channel, head, caller, query)
        if method != b"POST" or query or not caller.is_json:
            return False
        return self._send(channel, head, caller, body)

    def _understand(self, block: HeaderBlock, channel: FastChannel) -> object:
        caller = understand(block, cors=self._cors)
        if isinstance(caller, Caller):
            forwarded = block.values(b"x-forwarded-for")
            place = self._reads.place(channel.getPeer(), forwarded)
            block.forget_values()
            if place is not None:
                caller = structs.replace(caller, place=place)
            address = self._sends.address(channel.getPeer(), forwarded)
            if caller.is_json:
                caller = structs.replace(caller, address=address)
            session = self._accounts.known_session(caller.digest)
            if session is not None:
                self._accounts.note_caller(session, address)
            if session is not None and session.token is not None:
                # The connections of a user share the bytes.
                return structs.replace(caller, digest=session.token)
        return caller

    def _read(self, channel: FastChannel, head: Head, caller: Caller, text: bytes) -> bool:
        began = self._seconds()
        session = self._accounts.known_session(caller.digest)
        if session is None or not session.scopes & _READ:
            return False
        since, query = self._parse(text, head.headers)
        if query is None:
            return False
        if isinstance(query, PageQuery):
            return self._page(channel, head, session, query, began)
        wait = query.wait_seconds
        place = caller.place if wait else None
        pending = PendingPoll(self._responder, channel, head, session, began, query)
        try:
            if place is not None:
                pending.enter(place)
            poll = self._chats.start_poll(session, since, query.limit, wait, pending)
        except DomainError:
            pending.leave()
            return False
        if pending.channel is not None:
            pending.poll = poll
            channel.hold(pending)
        return True

    def _parse(
        self, text: bytes, headers: HeaderBlock
    ) -> tuple[Cursor | None, PollQuery | PageQuery | None]:
        """The parameters of a poll and where it begins, or those of a page; None if there are
        others, or if they are invalid.

        Clients change the cursor from poll to poll and repeat the rest, so that is parsed once, and
        held polls share it. So is the query of a page.
        """
        page = self._known_pages.get(text)
        if page is not None:
            return None, page
        match = _SINCE.search(text)
        if match is not None:
            cursor = Cursor(intern(match[1].decode("ascii")), int(match[2]), int(match[3], 16))
            rest = text[: match.start()] + text[match.end() :]
            known = self._known_rests.get(rest)
            if known is not None:
                return cursor, known
        unknown: list[str] = []
        try:
            query = PARAMETERS.parse(text, headers.values, unknown)
        except DomainError:
            return None, None
        if unknown and unknown_parameters(unknown, PARAMETERS.names) is not None:
            return None, None
        if type(query) is PollQuery and not query.changes:
            if match is not None and len(text) < MAX_KNOWN_LENGTH:
                _remember(self._known_rests, rest, query)
            return query.since, query
        if type(query) is not PageQuery:
            return None, None
        if query.at is None and len(text) < MAX_KNOWN_LENGTH:
            _remember(self._known_pages, text, query)
        return None, query

    def _page(
        self, channel: FastChannel, head: Head, session: Session, query: PageQuery, began: float
    ) -> bool:
        try:
            page = self._chats.cached_page(session, query.page, query.limit, query.at)
        except DomainError:
            return False
        if page is None:
            return False
        response = self._reads.page_response(query, page, self._seconds() - began)
        Pending(self._responder, channel, head, session, began).succeed(response)
        return True

    def _send(self, channel: FastChannel, head: Head, caller: Caller, body: bytes) -> bool:
        began = self._seconds()
        try:
            send = self._decoder.decode(b"application/json", body)
            key = SEND_PARAMETERS.parse(b"", head.headers.values).key if caller.has_key else None
        except DomainError:
            return False
        session = self._accounts.known_session(caller.digest)
        if session is None or not session.scopes & _SEND:
            return False
        pending = PendingSend(self._responder, channel, head, session, began)
        try:
            self._chats.start_send(
                session, send.user_id, send.message, key, caller.address, pending
            )
        except DomainError:
            pending.fail(Failure())
        else:
            channel.hold(pending)
        return True


def _remember(known: dict[bytes, Q], text: bytes, query: Q) -> None:
    if len(known) >= MAX_KNOWN_QUERIES:
        known.clear()
    known[text] = query
