"""Requests on the fast path that are under way, and how they are answered."""

from __future__ import annotations

from collections.abc import Callable

from msgspec import Struct
from twisted.logger import Logger
from twisted.python.failure import Failure

from chatd.api.chats_query import PollQuery
from chatd.api.chats_read import ReadCalls
from chatd.api.chats_send import SendCalls
from chatd.api.context import CLIENT_DISCONNECTED, RequestContext
from chatd.api.dispatch import Dispatch
from chatd.api.responses import JSONResponse
from chatd.domain.poll import Poll, Polled
from chatd.errors import DomainError
from chatd.http.fast_handler import FastChannel
from chatd.http.head import Head
from chatd.http.request import Request
from chatd.http.request_ids import RequestIds
from chatd.model import Appended, Session, WakeReason

_log = Logger()


class Responder(Struct, frozen=True, eq=False):
    """What all pending requests need to respond: the parts of the ordinary way that they share."""

    dispatch: Dispatch
    reads: ReadCalls
    sends: SendCalls
    seconds: Callable[[], float]
    request_ids: RequestIds


class Pending:
    """A request under way: what its connection holds until the response is written."""

    __slots__ = ("_began", "_head", "_responder", "_session", "channel")

    route = "get_chats"
    held_seconds = 0.0

    def __init__(
        self, responder: Responder, channel: FastChannel, head: Head, session: Session, began: float
    ) -> None:
        self.channel: FastChannel | None = channel
        """The connection; None when the request has ended."""
        self._responder = responder
        self._head = head
        self._session = session
        self._began = began

    def respond(self, render: Callable[..., JSONResponse], *arguments: object) -> None:
        """`succeed` with what `render` returns, or `fail` with what it raises."""
        try:
            response = render(*arguments)
        except Exception:
            self.fail(Failure())
        else:
            self.succeed(response)

    def succeed(self, response: JSONResponse) -> None:
        """Respond, and count the request; does nothing if the client has disconnected."""
        channel, self.channel = self.channel, None
        if channel is None:
            return
        dispatch = self._responder.dispatch
        if not channel.keep_alive() or (response.headers and b"Connection" in response.headers):
            context = self._context(channel)
            channel.hold(context.request)
            dispatch.respond(context, response)
            return
        request_id = self._responder.request_ids.of(None)
        block = b"X-Request-ID: %b\r\n%b" % (request_id, response.header_block)
        channel.respond(block, response.body, response.code)
        channel.claim_unsent(self._session.user_id)
        if dispatch.access is None:
            work = self._responder.seconds() - self._began - self.held_seconds
            dispatch.count(self._head.method, self.route, response.code, work, self.held_seconds)
        else:
            context = self._context(channel)
            context.request_id = request_id
            context.status = response.code
            context.request.sentLength = len(response.body)
            dispatch.record(context)

    def fail(self, failure: Failure) -> None:
        """Respond with an error."""
        channel, self.channel = self.channel, None
        if channel is not None:
            context = self._context(channel)
            channel.hold(context.request)
            self._responder.dispatch.fail(context, failure)

    def connectionLost(self, reason: Failure) -> None:
        """The client has disconnected."""
        channel, self.channel = self.channel, None
        if channel is not None:
            context = self._context(channel)
            context.status = CLIENT_DISCONNECTED
            self._responder.dispatch.record(context)

    def _context(self, channel: FastChannel) -> RequestContext:
        """What the ordinary way would have made of the request."""
        return RequestContext(
            Request(channel, self._head, b""),
            self._responder.request_ids.of(None),
            self._began,
            route=self.route,
            user_id=self._session.user_id,
            held_seconds=self.held_seconds,
        )


class PendingPoll(Pending):
    """A poll, as a `chatd.domain.poll.PollSink`."""

    __slots__ = ("_place", "_query", "_why", "held_seconds", "poll")

    def __init__(
        self,
        responder: Responder,
        channel: FastChannel,
        head: Head,
        session: Session,
        began: float,
        query: PollQuery,
    ) -> None:
        super().__init__(responder, channel, head, session, began)
        self.held_seconds = 0.0
        self.poll: Poll | None = None
        self._query = query
        self._why: WakeReason | None = None
        self._place: str | None = None

    def enter(self, place: str) -> None:
        """Count the poll among those of an address; raises `Overloaded`."""
        self._responder.reads.address_polls.enter(place)
        self._place = place

    def leave(self) -> None:
        """Uncount the poll, if it is counted."""
        place, self._place = self._place, None
        if place is not None:
            self._responder.reads.address_polls.leave(place)

    def poll_ended(self, polled: Polled) -> None:
        self.leave()
        self._why = polled.why
        self.held_seconds = polled.waited
        took = self._responder.seconds() - self._began - polled.waited
        self.respond(self._responder.reads.poll_response, self._query, polled, took)

    def poll_failed(self, failure: Failure) -> None:
        self.leave()
        if self.poll is not None:
            self.held_seconds = self.poll.waited
        self.fail(failure)

    def connectionLost(self, reason: Failure) -> None:
        """Close the poll."""
        self.leave()
        if self.poll is not None:
            self.poll.close()
            self.held_seconds = self.poll.waited
        super().connectionLost(reason)

    def _context(self, channel: FastChannel) -> RequestContext:
        context = super()._context(channel)
        if self._why is not None:
            context.outcome = self._why.value
        return context


class PendingSend(Pending):
    """A send, as the `chatd.domain.batch.Receiver` of its result."""

    __slots__ = ()

    route = "send"

    @property
    def called(self) -> bool:
        """Whether the client has disconnected."""
        return self.channel is None

    def callback(self, sent: Appended) -> None:
        """The message is durable."""
        try:
            self.respond(self._responder.sends.response, sent)
        except Exception:
            # The batch has other senders to answer.
            _log.failure("the response to a send could not be written")

    def errback(self, error: DomainError | Failure) -> None:
        """The send failed."""
        try:
            self.fail(error if isinstance(error, Failure) else Failure(error))
        except Exception:
            _log.failure("the response to a send could not be written")
