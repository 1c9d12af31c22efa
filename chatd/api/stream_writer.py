"""Writes the events of a stream as the response to its request."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

from twisted.internet.interfaces import IPushProducer, IReactorTime
from twisted.python.failure import Failure
from zope.interface import implementer

from chatd.api.changes import render_change
from chatd.api.context import RequestContext
from chatd.api.problems import response_to
from chatd.api.rendering import RenderMessage
from chatd.api.stream_formats import StreamFormat
from chatd.domain.message_stream import End, MessageStream
from chatd.domain.poll import DISCONNECTED
from chatd.http.request import Request
from chatd.http.timeouts import TICK, Timeouts
from chatd.model import ChangesPosition, InboxSlice, Message, Session, WakeReason
from chatd.model_sync import Change

WRITE_BYTES: Final = 64 * 1024
"""Messages are written in pieces of about this size, so that a slow reader's buffer is limited."""

KEEP_ALIVE_SECONDS: Final = 15.0
"""Seconds between keep-alives (contract, Streams)."""
STALLED_KEEP_ALIVES: Final = 8
"""A client that does not empty the buffer in so many intervals is disconnected."""

OVERLOAD_RETRY_AFTER: Final = 5


class KeepAlives:
    """Has every open stream write a keep-alive each `KEEP_ALIVE_SECONDS`, with one timer.

    `touch` is called with the session of each, which is in use for as long as its stream is.
    """

    def __init__(self, clock: IReactorTime, touch: Callable[[Session], None]) -> None:
        self._touch = touch
        self._timeouts = Timeouts(clock)
        # Timeouts come up to a tick late.
        self._queue = self._timeouts.queue(KEEP_ALIVE_SECONDS - TICK, self._due)

    def add(self, writer: StreamWriter) -> None:
        """A stream has been opened."""
        self._queue.add(writer)

    def remove(self, writer: StreamWriter) -> None:
        """A stream has ended."""
        self._queue.discard(writer)
        if not self._queue:
            self._timeouts.stop()

    def _due(self, writer: StreamWriter) -> None:
        self._queue.add(writer)
        self._touch(writer.session)
        writer.keep_alive()


@implementer(IPushProducer)
class StreamWriter:
    """A `chatd.domain.message_stream.MessageSink`, and the producer of the response.

    What the transport cannot take is not written, so that at most about twice `WRITE_BYTES` are
    buffered for a slow client.
    """

    __slots__ = (
        "_changes",
        "_context",
        "_ended",
        "_epoch",
        "_format",
        "_keep_alives",
        "_paused_keep_alives",
        "_render",
        "_request",
        "_retry_jitter",
        "_stream",
    )

    def __init__(
        self,
        context: RequestContext,
        stream: MessageStream,
        format: StreamFormat,
        *,
        render: RenderMessage,
        keep_alives: KeepAlives,
        retry_jitter: Callable[[], int],
    ) -> None:
        self._context = context
        self._request: Any = context.request
        self._stream = stream
        self._format = format
        self._render = render
        self._keep_alives = keep_alives
        self._retry_jitter = retry_jitter
        self._epoch = stream.cursor.epoch.encode("ascii")
        # The part of the cursor that is the position in the changes.
        self._changes = _suffix(stream.cursor.changes)
        self._ended: Callable[[], None] | None = None
        # How many keep-alives were due since the transport paused.
        self._paused_keep_alives = 0

    def start(self, inbox: InboxSlice, ended: Callable[[], None]) -> None:
        """Write the head, the opening and the first messages; `ended` is called at the end."""
        self._ended = ended
        request = self._request
        request.setHeader(b"Content-Type", self._format.media_type)
        request.setHeader(b"Cache-Control", b"no-store")
        # nginx would collect the response otherwise.
        request.setHeader(b"X-Accel-Buffering", b"no")
        if request.method == b"HEAD":
            self._stream.close()
            self._finish(b"")
            return
        if isinstance(request, Request):
            request.watch_disconnect(self)
        else:
            request.notifyFinish().addErrback(self.client_disconnected)
        self._keep_alives.add(self)
        request.registerProducer(self, True)
        request.write(self._format.opening(self._stream.cursor))
        self._stream.begin(self, inbox)

    @property
    def session(self) -> Session:
        """The session of the caller."""
        return self._stream.session

    def keep_alive(self) -> None:
        """Write a keep-alive, or disconnect a client that does not read."""
        if not self._paused_keep_alives:
            self._request.write(self._format.keep_alive)
            return
        self._paused_keep_alives += 1
        if self._paused_keep_alives > STALLED_KEEP_ALIVES:
            self._request.transport.abortConnection()

    # MessageSink

    def write_messages(self, messages: Sequence[Message]) -> int:
        form, epoch, suffix = self._format.message, self._epoch, self._changes
        return self._write_first(
            form(epoch, message.seq, message.sent_at, suffix, self._render(message))
            for message in messages
        )

    def write_changes(self, changes: Sequence[Change], positions: Sequence[ChangesPosition]) -> int:
        return self._write_first(map(self._change, changes, positions))

    def _change(self, change: Change, position: ChangesPosition) -> bytes:
        self._changes = _suffix(position)
        document = render_change(change, self._render)
        stream = self._stream
        assert stream.stamp is not None
        return self._format.change(self._epoch, stream.seq, stream.stamp, self._changes, document)

    def _write_first(self, pieces: Iterable[bytes]) -> int:
        """Write the first pieces, `WRITE_BYTES` or a little more; returns how many."""
        first = []
        size = 0
        for piece in pieces:
            first.append(piece)
            size += len(piece)
            if size >= WRITE_BYTES:
                break
        self._request.write(b"".join(first))
        return len(first)

    def end(self, why: End) -> None:
        if isinstance(why, WakeReason):
            self._context.outcome = why.value
            if why is WakeReason.SUPERSEDED:
                last = self._format.superseded()
            elif why is WakeReason.OVERLOAD:
                last = self._format.drain(OVERLOAD_RETRY_AFTER)
            else:
                last = self._format.drain(self._retry_jitter())
            self._finish(last)
        else:
            self.fail(Failure(why))

    def fail(self, failure: Failure) -> None:
        problem = response_to(failure, self._context).body
        assert isinstance(problem, bytes)
        self._finish(self._format.error(problem))

    # IPushProducer

    def pauseProducing(self) -> None:
        """The transport has enough to send."""
        self._paused_keep_alives = 1
        self._stream.pause()

    def resumeProducing(self) -> None:
        """The transport has sent what it had."""
        self._paused_keep_alives = 0
        self._stream.resume()

    def stopProducing(self) -> None:
        """The transport is closed."""
        self.client_disconnected()

    def client_disconnected(self, reason: object = None) -> None:
        """The client has disconnected."""
        self._context.outcome = self._context.outcome or DISCONNECTED
        self._stream.close()
        self._end()

    def _finish(self, last: bytes) -> None:
        request = self._request
        if request.producer is not None:
            request.unregisterProducer()
        if last:
            request.write(last)
        request.finish()
        self._end()

    def _end(self) -> None:
        ended, self._ended = self._ended, None
        if ended is not None:
            self._keep_alives.remove(self)
            # Else the request and this object would wait for a garbage collection.
            self._request.producer = None
            ended()


def _suffix(position: ChangesPosition | None) -> bytes:
    return b"" if position is None else b".%b" % str(position).encode("ascii")
