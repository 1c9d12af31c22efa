"""A stream: an endless poll that hands messages to its consumer as they are committed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, Protocol

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from chatd.domain.answer_size import fitting
from chatd.domain.notifier import Notifier, RecordsHold
from chatd.domain.poll import DISCONNECTED, Read, verify_read
from chatd.errors import DomainError, Unauthorized
from chatd.model import (
    ChangesPosition,
    Cursor,
    InboxSlice,
    Message,
    ReadAfter,
    Session,
    WakeReason,
)
from chatd.model_sync import Change

READ_LIMIT: Final = 100
"""Messages in one read."""
READ_BYTES: Final = 64 << 10
"""UTF-8 bytes of texts in one read, see `ReadAfter`: about what a connection takes at a time. What
it does not take is read again, or was read for a client that has gone."""

End = WakeReason | DomainError
"""Why a stream ended: what woke it, or its error."""

_log = Logger()


class MessageSink(Protocol):
    """The consumer of a stream. It may call `MessageStream.pause` while it is written to."""

    def write_messages(self, messages: Sequence[Message]) -> int:
        """Write the first of these messages, at least one; returns how many.

        The stream passes the others again when the sink is not paused.
        """
        ...

    def write_changes(self, changes: Sequence[Change], positions: Sequence[ChangesPosition]) -> int:
        """Write the first of these changes, at least one, with the positions after them."""
        ...

    def end(self, why: End) -> None:
        """The stream has ended; not called after `MessageStream.close`."""
        ...

    def fail(self, failure: Failure) -> None:
        """The stream has ended with an unexpected error."""
        ...


class MessageStream:
    """A `chatd.domain.notifier.Waiter` that counts as held from its construction to its end.

    `begin` attaches the sink. A sink that is paused costs nothing: what it has not taken is read
    from the store when it resumes. Nor is it given more large messages in a turn of the reactor
    than one read returns, however much it takes. At the end, `record.held_seconds` is set and
    `observe` called with the outcome and the seconds since the construction.
    """

    __slots__ = (
        "_began",
        "_clock",
        "_continuing",
        "_end",
        "_notifier",
        "_observe",
        "_paused",
        "_read",
        "_reading",
        "_record",
        "_sink",
        "_unread",
        "cursor",
        "held",
        "seq",
        "session",
        "stamp",
    )

    def __init__(
        self,
        session: Session,
        notifier: Notifier,
        read: Read,
        clock: IReactorTime,
        record: RecordsHold,
        observe: Callable[[str, float], None] | None,
    ) -> None:
        self.session = session
        self.seq = 0
        self.stamp: int | None = 0
        """That of `seq`, see `Cursor`."""
        self.held = True
        self.cursor = Cursor("", 0)
        """Where the stream begins."""
        self._notifier = notifier
        self._read = read
        self._clock = clock
        self._record = record
        self._observe = observe
        self._began = clock.seconds()
        self._sink: MessageSink | None = None
        # Why the stream ended before it had a sink.
        self._end: End | None = None
        self._paused = False
        # Whether a query is under way, so that only one is.
        self._reading = False
        # Whether it goes on in the next turn, since this one has written much.
        self._continuing = False
        # Whether the inbox may have messages after `seq` that no query has returned.
        self._unread = False
        notifier.add(self)
        notifier.hold(self)

    wants_changes = False

    @property
    def is_behind(self) -> bool:
        """Whether there may be messages after `seq`: the stream is reading, or its sink is slow."""
        return self._sink is None or self._reading or self._unread

    def begin_at(self, cursor: Cursor) -> None:
        """Set the position; raises `Unauthorized` if the session has ended meanwhile."""
        if isinstance(self._end, DomainError):
            raise self._end
        self.cursor = cursor
        self.seq = cursor.seq
        self.stamp = cursor.stamp

    def begin(self, sink: MessageSink, inbox: InboxSlice) -> None:
        """Write to `sink` from now on, starting with the result of the first read."""
        self._sink = sink
        try:
            self._deliver(inbox)
        except Exception:
            self._on_failure(Failure())
            return
        if self._end is not None:
            self._sink = None
            sink.end(self._end)
        else:
            self._advance()

    def pause(self) -> None:
        """The sink can take no more."""
        self._paused = True

    def resume(self) -> None:
        """The sink takes messages again."""
        self._paused = False
        self._advance()

    def close(self, outcome: str = DISCONNECTED) -> None:
        """End the stream without telling the sink; does nothing if it has ended."""
        if self.held:
            self._release(outcome)
        self._sink = None

    def wake(self, reason: WakeReason) -> None:
        """Write new messages, or end the stream for another reason."""
        if reason is WakeReason.MESSAGE:
            self._unread = True
            self._advance()
        else:
            self._finish(reason)

    def revoke(self) -> None:
        """End the stream as unauthorized."""
        self._finish(Unauthorized("the session was ended"))

    def _advance(self) -> None:
        """Read and write until there is nothing new, or the sink or the database is awaited."""
        if self._sink is None or self._reading:
            return
        try:
            while self._unread and self.held and not (self._paused or self._continuing):
                self._unread = False
                inbox = self._read_new()
                if isinstance(inbox, Deferred):
                    self._reading = True
                    inbox.addCallback(self._on_read).addErrback(self._on_failure)
                    return
                self._deliver(inbox)
        except Exception:
            # The notifier, which may have called this, has other waiters to wake.
            self._on_failure(Failure())

    def _read_new(self) -> InboxSlice | Deferred[InboxSlice | None]:
        query = ReadAfter(self.session.user_id, self.seq, READ_LIMIT, READ_BYTES)
        return self._read(query, listening=False)

    def _on_read(self, inbox: InboxSlice | None) -> None:
        self._reading = False
        if not self.held:
            return
        if inbox is None:
            self._finish(Unauthorized("the account was deleted"))
            return
        self._deliver(inbox)
        self._advance()

    def _on_failure(self, failure: Failure) -> None:
        self._reading = False
        if isinstance(failure.value, DomainError):
            self._finish(failure.value)
            return
        if self.held:
            self._release("error")
        sink, self._sink = self._sink, None
        if sink is None:
            _log.failure("a stream failed after its client had disconnected", failure)
        else:
            sink.fail(failure)

    def _continue(self) -> None:
        self._continuing = False
        self._advance()

    def _continue_later(self) -> None:
        if not self._continuing:
            self._continuing = True
            self._clock.callLater(0, self._continue)

    def _deliver(self, inbox: InboxSlice) -> None:
        # Each time: a standby that has taken over may lack what was read before.
        verify_read(self.seq, self.stamp, inbox)
        messages = inbox.messages
        fit = fitting(messages)
        is_large = len(messages) < READ_LIMIT and has_more(inbox)
        if fit < len(messages) or is_large:
            messages = messages[:fit]
            self._continue_later()
        while messages and not self._paused:
            assert self._sink is not None
            written = self._sink.write_messages(messages)
            last = messages[written - 1]
            self.seq, self.stamp = last.seq, last.sent_at
            messages = messages[written:]
        if self.seq < inbox.last_seq:
            self._unread = True

    def _finish(self, why: End) -> None:
        if not self.held:
            return
        self._end = why
        self._release(why.code if isinstance(why, DomainError) else why.value)
        sink, self._sink = self._sink, None
        if sink is not None:
            sink.end(why)

    def _release(self, outcome: str) -> None:
        self.held = False
        self._notifier.release()
        self._notifier.remove(self)
        seconds = self._clock.seconds() - self._began
        self._record.held_seconds = seconds
        if self._observe is not None:
            self._observe(outcome, seconds)


def has_more(inbox: InboxSlice) -> bool:
    """Whether there are messages after those that were read."""
    messages = inbox.messages
    return bool(messages) and messages[-1].seq < inbox.last_seq
