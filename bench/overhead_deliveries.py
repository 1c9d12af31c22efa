"""Deliveries to a held poll and to a stream by chatd, and by `bench.stock` on stock twisted.web.

A turn adds a message to an inbox in memory and wakes its reader, as a commit does; for a poll, it
begins with the request. So it covers HTTP server, dispatch, notifier, rendering and writing, but
neither sockets nor the database.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock
from twisted.web.server import Request, Site

from bench.memory_connection import MemoryConnection, Turn
from bench.stock import Stock
from chatd.api.calls import bind, calls_of, routes
from chatd.api.chats_read import ReadCalls
from chatd.api.client_address import TrustedProxies
from chatd.api.context import RequestContext
from chatd.api.dispatch import Dispatch
from chatd.api.fast_path import FastPath
from chatd.api.problems import problem
from chatd.api.rendering import EncodedMessageCache
from chatd.domain.address_polls import AddressPolls
from chatd.domain.caller_networks import CallerNetworks
from chatd.domain.chats import Chats
from chatd.domain.disk_space import DiskSpace
from chatd.domain.notifier import Notifier
from chatd.domain.rate_limits import RateLimits
from chatd.domain.read_limits import ReadLimits
from chatd.domain.session_expiry import SessionExpiry
from chatd.domain.store_calls import StoreCalls
from chatd.http.limits import HTTPLimits
from chatd.http.request_ids import RequestIds
from chatd.http.server import Server
from chatd.metrics import Metrics
from chatd.model import InboxSlice, Message, ReadAfter, Session

USER = 7
EPOCH = "bench234"
SENT_AT = 1_767_225_600_000_000
TEXT = "as long as they are"
HEAD = b"Host: bench\r\nUser-Agent: guard\r\nAuthorization: Bearer abcdefghijklmnopqrstuvwxyz\r\n"
POLL = b"GET /api/v1/chats/?since=%b&wait=50 HTTP/1.1\r\nAccept: */*\r\n" + HEAD + b"\r\n"
STREAM = (
    b"GET /api/v1/chats/?since=now HTTP/1.1\r\nAccept: application/x-ndjson\r\n" + HEAD + b"\r\n"
)


class Inbox:
    """What `Chats` needs of a store, for one inbox, of which the last message is in memory."""

    epoch = EPOCH
    removed: Mapping[int, int] = MappingProxyType({})

    def __init__(self) -> None:
        self.last: Message | None = None

    @property
    def last_seq(self) -> int:
        """The number of messages."""
        return 0 if self.last is None else self.last.seq

    def append(self) -> None:
        """Add a message."""
        self.last = Message(USER, self.last_seq + 1, 1, SENT_AT, TEXT)

    def read_cached(self, query: ReadAfter, *, listening: bool = False) -> InboxSlice:
        """The last message if it is after the position."""
        last = self.last
        if last is None:
            return InboxSlice(0, (), 0)
        if query.seq is None or query.seq >= last.seq:
            return InboxSlice(last.seq, (), SENT_AT)
        return InboxSlice(last.seq, (last,), SENT_AT if query.seq else 0)

    def read(self, queries: object) -> Deferred[Any]:
        """Not needed: all is in memory."""
        raise AssertionError(queries)


class Ours:
    """chatd's calls that read, on an inbox in memory; everybody is `USER`."""

    calls = calls_of(ReadCalls)
    app = routes(calls)
    seq_field = b'"seq":%d,'

    def __init__(self, clock: Any) -> None:
        inbox: Any = Inbox()
        notifier = Notifier(max_held=100, expiry=SessionExpiry(clock, lambda: 0))
        session = Session(USER, b"token")
        self.session = session
        callers = CallerNetworks()
        reads = ReadLimits(RateLimits(None, clock), lambda user_id: True)
        self.chats = Chats(
            inbox,
            None,  # type: ignore[arg-type]
            notifier,
            RateLimits(None, clock),
            reads,
            callers,
            StoreCalls(reads, callers, 1),
            DiskSpace(None, 0, clock),
            clock=clock,
            max_message_bytes=4096,
        )
        self._inbox = inbox
        self._notifier = notifier
        self.reads = ReadCalls(
            self.chats,
            EncodedMessageCache(),
            clock=clock,
            retry_jitter=lambda: 1,
            address_polls=AddressPolls(lambda: None),
            proxies=TrustedProxies(()),
        )
        self.handlers = bind(
            lambda context: self._authenticate(context, session),
            self.reads,
        )

    def address(self, peer: object, forwarded: object) -> str:
        """The client's."""
        return "127.0.0.1"

    def note_caller(self, session: Session, address: str) -> None:
        """Nobody is told where it was used."""

    def deliver(self) -> None:
        """Add a message and wake its reader."""
        self._inbox.append()
        self._notifier.wake((USER,))

    @property
    def last_seq(self) -> int:
        """The number of messages."""
        last: int = self._inbox.last_seq
        return last

    def cursor(self) -> bytes:
        """The cursor after the last message."""
        return b"%b-%d-%x" % (EPOCH.encode(), self.last_seq, SENT_AT if self.last_seq else 0)

    def known_session(self, digest: bytes) -> Session:
        """What the fast path asks of the accounts."""
        return self.session

    def _authenticate(self, context: RequestContext, session: Session) -> Deferred[Session]:
        assert (context.request.getHeader(b"authorization") or b"").startswith(b"Bearer ")
        return succeed(session)


class StockInbox(Stock):
    """The stock server on an inbox in memory."""

    seq_field = b'"seq": %d,'

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._waiting = {}
        self.last_seq = 0

    def deliver(self) -> None:
        """Add a message and wake its reader."""
        self.last_seq += 1
        self._wake(USER)

    def cursor(self) -> bytes:
        """The cursor after the last message."""
        return b"%d" % self.last_seq

    def _caller(self, request: Request) -> int:
        assert (request.getHeader("authorization") or "").startswith("Bearer ")
        return USER

    def _last(self, user: int) -> int:
        return self.last_seq

    def _after(self, user: int, seq: int) -> list[Any]:
        if seq >= self.last_seq:
            return []
        return [(self.last_seq, 1, TEXT, 1_767_225_600_000_000, USER)]


def ours() -> tuple[Any, MemoryConnection]:
    """chatd's API, and a connection to it."""
    clock: Any = Clock()
    api = Ours(clock)
    dispatch = Dispatch(api, clock=clock, metrics=Metrics())
    accounts: Any = api
    sends: Any = api
    fast_path = FastPath(
        dispatch,
        accounts,
        api.chats,
        api.reads,
        sends,
        seconds=clock.seconds,
        request_ids=RequestIds(),
    )
    server = Server(
        resource=dispatch,
        clock=clock,
        limits=HTTPLimits(),
        problem=problem,
        fast_handler=fast_path,
    )
    return api, MemoryConnection(server)


def stock() -> tuple[Any, MemoryConnection]:
    """The stock API, and a connection to it."""
    clock = Clock()
    api = StockInbox(clock)
    return api, MemoryConnection(Site(api.app.resource(), reactor=clock))


def poll(start: Callable[[], tuple[Any, MemoryConnection]]) -> Turn:
    """A turn is a poll that is held, and a message that it responds with."""
    api, connection = start()

    def turn() -> None:
        assert not connection.exchange(POLL % api.cursor())
        api.deliver()
        response = connection.taken()
        assert response.startswith(b"HTTP/1.1 200 OK\r\n"), response
        assert _one_message(api, response), response

    return turn


def stream(start: Callable[[], tuple[Any, MemoryConnection]]) -> Turn:
    """A turn is a message over a stream that was opened before."""
    api, connection = start()
    opening = connection.exchange(STREAM)
    assert opening.endswith(b'{"keepalive":true}\n\r\n'), opening

    def turn() -> None:
        api.deliver()
        line = connection.taken()
        assert line.endswith(b"}\n\r\n"), line
        assert _one_message(api, line), line

    return turn


def _one_message(api: Any, written: bytes) -> bool:
    """Whether the last message was written, and no other."""
    return written.count(b'"seq":') == 1 and api.seq_field % api.last_seq in written
