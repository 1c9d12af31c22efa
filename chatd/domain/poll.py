"""The long poll: reads, waits for a message, reads again.

A poll is one small object, since tens of thousands are held: to the notifier a waiter, to its sink
a result that comes later.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol

from msgspec import Struct
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from chatd.domain.answer_size import MAX_READ_BYTES, fitting
from chatd.domain.notifier import Notifier
from chatd.errors import CursorEpoch, CursorExpired, DomainError, Unauthorized
from chatd.model import (
    ChangesPosition,
    Cursor,
    InboxSlice,
    Message,
    ReadAfter,
    Session,
    WakeReason,
)
from chatd.model_sync import ChangesSlice, ReadChanges
from chatd.runtime.deadlines import Deadlines, Entry

DISCONNECTED: Final = "disconnect"
"""The outcome of a poll or stream whose client has disconnected."""

_log = Logger()


class Polled(Struct, frozen=True, gc=False):
    """The result of a poll: messages, oldest first, and why it stopped waiting.

    `count` is the number of messages in the inbox, `waited` how many seconds the poll was held.
    """

    messages: tuple[Message, ...]
    count: int
    cursor: Cursor
    why: WakeReason
    waited: float
    found: ChangesSlice | None = None
    """The changes, if they were asked for."""

    @property
    def more(self) -> bool:
        """Whether there are messages, or changes if asked for, after those of this result."""
        return self.cursor.seq < self.count or (self.found is not None and self.found.more)


class PollSink(Protocol):
    """Receives the result of a poll, once, unless the poll is closed before."""

    def poll_ended(self, polled: Polled) -> None:
        """The result."""
        ...

    def poll_failed(self, failure: Failure) -> None:
        """Usually a `DomainError`: `CursorEpoch`, `Unauthorized`, or an error of the store."""
        ...


class Read(Protocol):
    """Reads an inbox, see `IStore.read_cached`; a Deferred if a query is needed."""

    def __call__(
        self, query: ReadAfter, *, listening: bool
    ) -> InboxSlice | Deferred[InboxSlice | None]: ...


class ReadsChanges(Protocol):
    """Reads changes, see `ISyncStore.changes`."""

    def __call__(self, query: ReadChanges) -> Deferred[ChangesSlice | None]: ...


class Polls:
    """What all polls share. `observe` is called with the outcome of each poll that asked to wait
    and the seconds for which it was held, `note_delivered` with the user and the seq of each valid
    cursor that has come back, `charge` with the user and the messages of each result."""

    def __init__(
        self,
        notifier: Notifier,
        read: Read,
        clock: IReactorTime,
        epoch: Callable[[], str],
        observe: Callable[[str, float], None] | None,
        read_changes: ReadsChanges,
        note_delivered: Callable[[int, int], None],
        charge: Callable[[int, Sequence[Message]], None],
    ) -> None:
        self.read_changes = read_changes
        self.note_delivered = note_delivered
        self.charge = charge
        self.notifier = notifier
        self.read = read
        self.seconds = clock.seconds
        self.deadlines = Deadlines(clock)
        self.epoch = epoch
        self.observe = observe

    def start(
        self,
        session: Session,
        since: Cursor | None,
        limit: int,
        wait: float,
        sink: PollSink,
        position: ChangesPosition | None = None,
        kind: type[Poll] | None = None,
    ) -> Poll:
        """Start a poll for messages after `since` (None: from now on) that waits up to `wait`
        seconds; `sink` may be called before this returns.

        `position` is that in the changes, which a `Poll` passes on. `kind` is another class.
        """
        poll = (kind or Poll)(self, session, limit, wait, sink, position)
        # First of all, in the reactor turn that authenticated the caller: nothing that happens
        # from here on can be missed, neither a message nor a revocation.
        self.notifier.add(poll)
        poll.begin(since)
        return poll


class Poll:
    """A `chatd.domain.notifier.Waiter`, registered from its start to its end."""

    __slots__ = (
        "_count",
        "_deadline",
        "_due",
        "_ended",
        "_found",
        "_held_since",
        "_limit",
        "_pending",
        "_polls",
        "_reading",
        "_returned",
        "_sink",
        "_wait",
        "held",
        "position",
        "seq",
        "session",
        "stamp",
        "waited",
    )

    def __init__(
        self,
        polls: Polls,
        session: Session,
        limit: int,
        wait: float,
        sink: PollSink,
        position: ChangesPosition | None,
    ) -> None:
        self.position = position
        self._found: ChangesSlice | None = None
        # The seq of the client's cursor, until it has proved valid.
        self._returned: int | None = None
        self.session = session
        self.seq = 0
        self.stamp: int | None = None
        """That of `seq`, see `Cursor`; None until it is known."""
        self.held = False
        self.waited = 0.0
        """How many seconds the poll was held."""
        self._polls = polls
        self._limit = limit
        self._wait = wait
        self._sink: PollSink | None = sink
        self._ended = False
        # What has happened while a query ran.
        self._pending: WakeReason | Unauthorized | None = None
        # The number of messages at the last read.
        self._count = 0
        self._due = polls.seconds() + wait
        self._held_since = 0.0
        self._deadline: Entry | None = None
        # The query under way.
        self._reading: Deferred[Any] | None = None

    wants_changes = False
    is_behind = False
    """While it is held, it has read everything that it knows of."""

    def begin(self, since: Cursor | None) -> None:
        """Read for the first time."""
        after = None
        if since is None:
            self.seq = -1
        else:
            self.seq = after = self._returned = since.seq
            self.stamp = since.stamp
        # A commit of another process that is not known here yet will wake the poll.
        self._read(after, listening=self._wait > 0)

    def wake(self, reason: WakeReason) -> None:
        """Read again for a message, or end for another reason; a poll that reads does so later."""
        if self.held:
            self._release()
            if reason is WakeReason.MESSAGE:
                self._read(self.seq, listening=False)
            else:
                self._end((), reason)
        elif not isinstance(self._pending, Unauthorized):
            self._pending = reason

    def revoke(self) -> None:
        """Fail with `Unauthorized`."""
        error = Unauthorized("the session was ended")
        if self.held:
            self._release()
            self._fail(Failure(error))
        else:
            self._pending = error

    def on_deadline(self) -> None:
        """The wait is over."""
        self._deadline = None
        self.wake(WakeReason.TIMEOUT)

    def close(self) -> None:
        """End without a result, because the client has disconnected; does nothing at the end."""
        if not self._ended:
            if self.held:
                self._release()
            self._leave(DISCONNECTED)
            self._sink = None
            if self._reading is not None:
                # A query that has not begun is not made.
                self._reading.cancel()

    def _read(self, after: int | None, *, listening: bool) -> None:
        query = ReadAfter(self.session.user_id, after, self._limit, MAX_READ_BYTES)
        try:
            inbox = self._polls.read(query, listening=listening)
        except DomainError:
            self._fail(Failure())
            return
        if isinstance(inbox, Deferred):
            self._await(inbox)
        else:
            self._on_read(inbox)

    def _await(self, reading: Deferred[InboxSlice | None]) -> None:
        self._reading = reading
        reading.addCallback(self._on_read).addErrback(self._fail)

    def _on_read(self, inbox: InboxSlice | None) -> None:
        self._reading = None
        if self._ended:
            return
        if inbox is None:
            self._fail(Failure(Unauthorized("the account was deleted")))
            return
        self._count = inbox.last_seq
        if self.seq < 0:
            self.seq = inbox.last_seq
        else:
            # Each time: a standby that has taken over may lack what was read before. What usually
            # is right is not worth a call.
            messages = inbox.messages
            begins = messages[0].seq - 1 if messages else inbox.last_seq
            if begins != self.seq or self.stamp is None or self.stamp != inbox.stamp:
                try:
                    verify_read(self.seq, self.stamp, inbox)
                except (CursorEpoch, CursorExpired):
                    self._fail(Failure())
                    return
        self.stamp = inbox.stamp
        if self._returned:
            self._polls.note_delivered(self.session.user_id, self._returned)
            self._returned = None
        found = self._found
        if inbox.messages or self._wait <= 0 or (found and (found.changes or found.more)):
            self._end(inbox.messages, WakeReason.MESSAGE)
        else:
            self._hold()

    def _hold(self) -> None:
        now = self._polls.seconds()
        if now >= self._due:
            self._end((), WakeReason.TIMEOUT)
            return
        pending, self._pending = self._pending, None
        if pending is None:
            self.held = True
            self._held_since = now
            self._polls.notifier.hold(self)
            if self.held:
                self._deadline = self._polls.deadlines.add(self._due, self)
        elif pending is WakeReason.MESSAGE:
            self._read(self.seq, listening=False)
        elif isinstance(pending, Unauthorized):
            self._fail(Failure(pending))
        else:
            self._end((), pending)

    def _release(self) -> None:
        polls = self._polls
        self.held = False
        self.waited += polls.seconds() - self._held_since
        if self._deadline is not None:
            polls.deadlines.cancel(self._deadline)
            self._deadline = None
        polls.notifier.release()

    def _end(self, messages: tuple[Message, ...], why: WakeReason) -> None:
        self._leave(why.value)
        if messages:
            self._polls.charge(self.session.user_id, messages)
            if len(messages) > 1:
                messages = messages[: fitting(messages)]
            last = messages[-1]
            cursor = Cursor(self._polls.epoch(), last.seq, last.sent_at, self.position)
        else:
            cursor = Cursor(self._polls.epoch(), self.seq, self.stamp, self.position)
        sink, self._sink = self._sink, None
        assert sink is not None
        try:
            sink.poll_ended(Polled(messages, self._count, cursor, why, self.waited, self._found))
        except Exception:
            # The notifier, which may have called this, has other waiters to wake.
            _log.failure("the result of a poll could not be passed on")

    def _fail(self, failure: Failure) -> None:
        self._reading = None
        if self._ended:
            # Its query was cancelled.
            return
        error = failure.value
        self._leave(error.code if isinstance(error, DomainError) else "error")
        sink, self._sink = self._sink, None
        assert sink is not None
        try:
            sink.poll_failed(failure)
        except Exception:
            _log.failure("the error of a poll could not be passed on")

    def _leave(self, outcome: str) -> None:
        polls = self._polls
        self._ended = True
        polls.notifier.remove(self)
        if self._wait > 0 and polls.observe is not None:
            polls.observe(outcome, self.waited)


def verify(seq: int, stamp: int | None, inbox: InboxSlice) -> None:
    """Raise `CursorEpoch` unless the inbox still has the message that was seen at `seq`.

    `inbox` is what was read from there; for `stamp` see `Cursor`.
    """
    if seq > inbox.last_seq:
        raise CursorEpoch("the cursor is past the end of this inbox: begin again")
    if stamp is not None and stamp != inbox.stamp:
        raise CursorEpoch("the inbox has another message where the cursor is: begin again")


def verify_read(seq: int, stamp: int | None, inbox: InboxSlice) -> None:
    """`verify` what was read from after `seq`, and that nothing is missing in between.

    Raises `CursorEpoch`, and `CursorExpired` if messages after `seq` were removed.
    """
    if inbox.stamp is not None:
        verify(seq, stamp, inbox)
    if inbox.last_seq > seq and (not inbox.messages or inbox.messages[0].seq != seq + 1):
        raise expired()
    if inbox.stamp is None:
        # The message at `seq` is gone, too.
        verify(seq, stamp, inbox)


def expired() -> CursorExpired:
    """The error for a cursor after which messages were removed."""
    return CursorExpired("messages after this cursor were removed from the inbox")


class DeferredSink:
    """A `PollSink` that fires a Deferred, whose cancellation closes the poll."""

    def __init__(self) -> None:
        self.result: Deferred[Polled] | None = Deferred(self._cancel)
        """Released at the end: it refers to this object, and cycles cost garbage collections."""
        self.poll: Poll | None = None

    def poll_ended(self, polled: Polled) -> None:
        self._take().callback(polled)

    def poll_failed(self, failure: Failure) -> None:
        self._take().errback(failure)

    def _take(self) -> Deferred[Polled]:
        result, self.result = self.result, None
        assert result is not None
        return result

    def _cancel(self, _: Deferred[Polled]) -> None:
        assert self.poll is not None
        self.result = None
        self.poll.close()
