"""Messages: sending, pages, long polls, conversations.

A long poll registers with the notifier, reads, waits and reads again; reading never consumes. The
store numbers the messages of an inbox, clients hold the cursors (contract, Chats).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import Final

from msgspec import Struct, structs
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from chatd.domain.answer_size import MAX_PAGE_BYTES, MAX_READ_BYTES, fitting
from chatd.domain.batch import MAX_BATCH_SIZE, Receiver
from chatd.domain.caller_networks import CallerNetworks
from chatd.domain.changes_poll import ChangesPoll
from chatd.domain.changes_stream import ChangesStream
from chatd.domain.disk_space import DiskSpace
from chatd.domain.lane_batcher import LaneBatcher
from chatd.domain.message_stream import READ_BYTES, READ_LIMIT, MessageStream
from chatd.domain.notifier import Notifier, RecordsHold
from chatd.domain.poll import (
    DISCONNECTED,
    DeferredSink,
    Poll,
    Polled,
    Polls,
    PollSink,
    expired,
    verify,
    verify_read,
)
from chatd.domain.rate_limits import RateLimits
from chatd.domain.read_batcher import ReadBatcher
from chatd.domain.read_limits import ReadLimits
from chatd.domain.send_batcher import SendBatcher
from chatd.domain.store_calls import StoreCalls
from chatd.domain.texts import encode_text
from chatd.errors import (
    CursorEpoch,
    DomainError,
    PageNotFound,
    Unauthorized,
    UserNotFound,
)
from chatd.interfaces import IBus, IStore
from chatd.model import (
    ALL_CHANGES,
    LOCAL,
    Appended,
    ChangesPosition,
    ConversationCursor,
    Cursor,
    Draft,
    IdempotencyKey,
    InboxSlice,
    Message,
    ReadAfter,
    ReadConversation,
    ReadPage,
    Session,
)
from chatd.model_sync import ChangesSlice, MessageChange, PeerPositions, ReadChanges

MAX_QUEUED_READS: Final = 50_000
MAX_BATCH_MESSAGES: Final = 400
"""About how many messages one call of the store reads."""


PAGE_ALWAYS_FITS: Final = 10
"""Pages of so many messages or fewer are never cut."""


class Page(Struct, frozen=True, gc=False):
    """A page of the inbox, newest first, as it was at `cursor`.

    `page` and `pages` count pages of `limit` messages, which are fewer than were asked for if those
    are too large for one answer.
    `count` is the number of messages without those that were removed from the beginning.
    """

    page: int
    pages: int
    limit: int
    count: int
    cursor: Cursor
    messages: tuple[Message, ...]


class Conversation(Struct, frozen=True, gc=False):
    """Messages between two accounts, newest first; `older` is the `before` of the next page.

    `positions` is how far the caller's messages were delivered and read.
    """

    messages: tuple[Message, ...]
    older: ConversationCursor | None
    positions: PeerPositions


class Chats:
    """Use cases of messages.

    `observe_poll` is called with the outcome of each poll that asked to wait and the seconds for
    which it was held. `observe_batch` returns, for "append" and "read", the observer of the sizes
    of batches.
    """

    def __init__(
        self,
        store: IStore,
        bus: IBus,
        notifier: Notifier,
        limits: RateLimits,
        read_limits: ReadLimits,
        callers: CallerNetworks,
        calls: StoreCalls,
        disk: DiskSpace,
        *,
        clock: IReactorTime,
        max_message_bytes: int,
        note_delivered: Callable[[int, int], None] = lambda user_id, seq: None,
        observe_poll: Callable[[str, float], None] | None = None,
        observe_batch: Callable[[str], Callable[[float], None]] | None = None,
    ) -> None:
        self._store = store
        self._bus = bus
        self._notifier = notifier
        self._limits = limits
        self._read_limits = read_limits
        self._calls = calls
        self._disk = disk
        self._clock = clock
        self.max_message_bytes = max_message_bytes
        self._observe_poll = observe_poll
        self._note_delivered = note_delivered
        self._polls = Polls(
            notifier,
            self._read_inbox,
            clock,
            lambda: store.epoch,
            observe_poll,
            self._read_changes,
            note_delivered,
            read_limits.charge,
        )
        observe_sends = observe_batch and observe_batch("append")
        observe_reads = observe_batch and observe_batch("read")
        self._sends: LaneBatcher[Draft, Appended] = LaneBatcher(
            self._append,
            lambda draft: store.lane(draft.received_by),
            lambda run: SendBatcher(
                run,
                clock,
                callers,
                lambda: limits.enabled,
                on_batch_done=self._publish,
                observe_size=observe_sends,
            ),
        )
        self._reads: LaneBatcher[ReadAfter | ReadPage, InboxSlice | None] = LaneBatcher(
            store.read,
            lambda query: store.lane(query.user_id),
            lambda run: ReadBatcher(
                run,
                clock,
                max_queued=MAX_QUEUED_READS,
                max_batch_size=MAX_BATCH_SIZE,
                owner=lambda query: query.user_id,
                group=lambda query: callers.of(query.user_id),
                weigh=lambda query: query.limit,
                max_weight=MAX_BATCH_MESSAGES,
                check=lambda query: read_limits.check(query.user_id),
                observe_size=observe_reads,
            ),
        )

    async def send(
        self,
        session: Session,
        received_by: int,
        text: str,
        key: str | None = None,
        address: str = LOCAL,
    ) -> Appended:
        """Append a message that came from `address` to the recipient's inbox; returns once it is
        durable.

        Raises `InvalidBody`, `MessageTooLarge`, `RateLimited`, `UserNotFound`, `Blocked`,
        `FirstContactClosed`, `IdempotencyKeyReused`, `InboxFull`, `InsufficientStorage`,
        `Overloaded`. A send that was submitted to the
        store completes or fails as a whole, even if the caller is cancelled.
        """
        return await self._sends.submit(self._draft(session, received_by, text, key, address))

    def start_send(
        self,
        session: Session,
        received_by: int,
        text: str,
        key: str | None,
        address: str,
        receiver: Receiver,
    ) -> None:
        """`send` without a coroutine: `receiver` is given the `Appended` or the error.

        Raises `InvalidBody`, `MessageTooLarge`, `RateLimited`, `InsufficientStorage`, `Overloaded`.
        """
        self._sends.enqueue(self._draft(session, received_by, text, key, address), receiver)

    def _draft(
        self, session: Session, received_by: int, text: str, key: str | None, address: str
    ) -> Draft:
        """Check a message and count it."""
        encoded = encode_text(text, self.max_message_bytes)
        self._disk.check()
        self._limits.count_text(session.user_id, address, len(encoded))
        idempotency = None
        if key is not None:
            fingerprint = hashlib.sha256(b"%d:%b" % (received_by, encoded)).digest()
            idempotency = IdempotencyKey(key, fingerprint)
        return Draft(session.user_id, received_by, text, idempotency)

    def _append(
        self, drafts: Sequence[Draft], within: float
    ) -> Deferred[list[Appended | DomainError]]:
        def publish_all(failure: Failure) -> Failure:
            # The transaction may have been committed nevertheless: wake the recipients to check.
            self._bus.publish({draft.received_by for draft in drafts})
            self._bus.publish_changes({draft.sent_by for draft in drafts})
            return failure

        return self._store.append(drafts, within).addErrback(publish_all)

    def _publish(self, drafts: Sequence[Draft], results: Sequence[Appended | DomainError]) -> None:
        # Even if every sender has disconnected: the messages are committed. Those that were found
        # by their keys may have been stored by an attempt whose answer was lost.
        messages = [result.message for result in results if isinstance(result, Appended)]
        self._bus.publish({message.received_by for message in messages})
        self._bus.publish_changes({message.sent_by for message in messages})

    async def page(self, session: Session, page: int, limit: int, at: Cursor | None = None) -> Page:
        """Page `page` (from 1) of the inbox, newest first, as it is now or was at cursor `at`.

        Raises `CursorEpoch`, `CursorExpired`, and `PageNotFound` past the last page; page 1 always
        exists.
        """
        self._read_limits.count(session.user_id)
        inbox = await self._read(ReadPage(session.user_id, page, limit, self._pinned(at)))
        self._read_limits.charge(session.user_id, inbox.messages)
        return self._page(session, inbox, page, limit, at)

    def cached_page(
        self, session: Session, page: int, limit: int, at: Cursor | None = None
    ) -> Page | None:
        """`page` if it is known without a query, otherwise None."""
        inbox = self._store.read_cached(ReadPage(session.user_id, page, limit, self._pinned(at)))
        if inbox is None:
            return None
        self._read_limits.count(session.user_id)
        self._read_limits.charge(session.user_id, inbox.messages)
        return self._page(session, inbox, page, limit, at)

    def _pinned(self, at: Cursor | None) -> int | None:
        if at is None:
            return None
        self._check_epoch(at)
        return at.seq

    def _page(
        self, session: Session, inbox: InboxSlice, page: int, limit: int, at: Cursor | None
    ) -> Page:
        removed = self._store.removed.get(session.user_id, 0)
        messages = inbox.messages
        if at is None:
            end = inbox.last_seq
        else:
            end = at.seq
            if end < removed:
                raise expired()
            verify(end, at.stamp, inbox)
        if removed:
            messages = tuple([each for each in messages if each.seq > removed])
        count = end - removed
        pages = -(-count // limit)
        if page > max(pages, 1):
            raise PageNotFound(f"page {page} of {pages}")
        if limit > PAGE_ALWAYS_FITS:
            fit = fitting(messages, PAGE_ALWAYS_FITS, MAX_PAGE_BYTES)
            if fit < len(messages):
                # The same place in pages of another size, so that the next ones are right.
                smaller = max(each for each in range(1, fit + 1) if limit % each == 0)
                page = (page - 1) * (limit // smaller) + 1
                limit, pages, messages = smaller, -(-count // smaller), messages[:smaller]
        return Page(
            page, pages, limit, count, Cursor(self._store.epoch, end, inbox.stamp), messages
        )

    def start_poll(
        self,
        session: Session,
        since: Cursor | None,
        limit: int,
        wait: float,
        sink: PollSink,
        *,
        changes: bool = False,
    ) -> Poll:
        """Start a poll for messages after `since` (None: from now on) that waits up to `wait`
        seconds for the first; `sink` may be called before this returns.

        With `changes`, also for changes. Raises `CursorEpoch` for a cursor of another history, and
        `CursorExpired` for one after which messages were removed.
        """
        start = self._start(since, changes)
        if self._store.removed:
            since = self._kept(session, since)
        self._read_limits.count(session.user_id)
        kind = ChangesPoll if changes else Poll
        return self._polls.start(session, since, limit, wait, sink, start, kind)

    async def poll(
        self,
        session: Session,
        since: Cursor | None,
        limit: int,
        wait: float,
        record: RecordsHold | None = None,
        *,
        changes: bool = False,
    ) -> Polled:
        """`start_poll` as a coroutine, whose cancellation closes the poll.

        However the poll ends (result, error, cancellation), `record.held_seconds` is set to the
        time it was held. Raises `CursorEpoch`, `CursorExpired`, `Unauthorized` when the session
        ends meanwhile, and errors of the store.
        """
        sink = DeferredSink()
        result = sink.result
        assert result is not None
        sink.poll = poll = self.start_poll(session, since, limit, wait, sink, changes=changes)
        try:
            return await result
        finally:
            if record is not None:
                record.held_seconds = poll.waited

    async def stream(
        self,
        session: Session,
        since: Cursor | None,
        record: RecordsHold,
        *,
        changes: bool = False,
    ) -> tuple[MessageStream, InboxSlice]:
        """A stream of the messages after `since` (None: from now on), and its first messages.

        With `changes`, also of the changes.

        The caller passes them to `MessageStream.begin`. Raises what `poll` raises.
        """
        start = self._start(since, changes)
        since = self._kept(session, since)
        after = None if since is None else since.seq
        self._read_limits.count(session.user_id)
        # As for a poll, first of all: from here on no message and no revocation is missed.
        arguments = (session, self._notifier, self._read_inbox, self._clock, record)
        stream = (
            ChangesStream(*arguments, self._observe_poll, read_changes=self._read_changes)
            if changes
            else MessageStream(*arguments, self._observe_poll)
        )
        try:
            first = ReadAfter(session.user_id, after, READ_LIMIT, READ_BYTES)
            inbox = await self._read(first, listening=True)
            self._read_limits.charge(session.user_id, inbox.messages)
            if since is not None:
                verify_read(since.seq, since.stamp, inbox)
            begin = inbox.last_seq if after is None else after
            if after:
                self._note_delivered(session.user_id, after)
            if isinstance(stream, ChangesStream):
                start = await stream.read_first(start, inbox)
            stream.begin_at(Cursor(self._store.epoch, begin, inbox.stamp, start))
        except BaseException as ended:
            stream.close(_outcome(ended))
            raise
        return stream, inbox

    async def conversation(
        self, session: Session, peer: int, limit: int, before: ConversationCursor | None = None
    ) -> Conversation:
        """Messages between the caller and `peer`, newest first, older than `before` if given.

        Raises `UserNotFound` if the peer has no account and left no messages in the inbox.
        """
        user_id, store = session.user_id, self._store
        query = ReadConversation(user_id, peer, limit, before, MAX_READ_BYTES)
        reading = self._calls.run(user_id, lambda: store.sync.peer_positions(user_id, peer))
        try:
            found = await self._calls.run(user_id, lambda: store.conversation(query))
            positions = await reading
        except BaseException:
            reading.addErrback(lambda _: None)
            reading.cancel()
            raise
        if found is None:
            raise Unauthorized("the account was deleted")
        if not found.messages and before is None and not found.peer_exists:
            raise UserNotFound(f"there is no user {peer}, and nothing from them in this inbox")
        self._read_limits.charge(user_id, found.messages)
        messages = found.messages[: fitting(found.messages)]
        rest = found.older or len(messages) < len(found.messages)
        older = ConversationCursor.of(messages[-1]) if rest else None
        return Conversation(messages, older, positions)

    def queued(self) -> dict[str, float]:
        """How many sends and reads wait for the store."""
        return {"append": self._sends.queued, "read": self._reads.queued}

    def wait_idle(self) -> Deferred[None]:
        """Fires when no send is queued or running."""
        return self._sends.wait_idle()

    async def _read(self, query: ReadAfter | ReadPage, listening: bool = False) -> InboxSlice:
        found = self._read_inbox(query, listening=listening)
        inbox = await found if isinstance(found, Deferred) else found
        if inbox is None:
            raise Unauthorized("the account was deleted")
        return inbox

    def _read_inbox(
        self, query: ReadAfter | ReadPage, *, listening: bool
    ) -> InboxSlice | Deferred[InboxSlice | None]:
        cached = self._store.read_cached(query, listening=listening)
        return self._reads.submit(query) if cached is None else cached

    def _read_changes(self, query: ReadChanges) -> Deferred[ChangesSlice | None]:
        def charge(found: ChangesSlice | None) -> ChangesSlice | None:
            if found is not None:
                self._read_limits.charge(query.user_id, found.messages)
                if self._store.removed:
                    found = self._without_removed(found)
            return found

        read = self._calls.run(query.user_id, lambda: self._store.sync.changes(query))
        return read.addCallback(charge)

    def _without_removed(self, found: ChangesSlice) -> ChangesSlice:
        """Leave out the changes of messages that were removed and are not deleted yet."""
        removed = self._store.removed
        kept = [
            (change, position)
            for change, position in zip(found.changes, found.positions, strict=True)
            if not isinstance(change, MessageChange)
            or change.message.seq > removed.get(change.message.received_by, 0)
        ]
        if len(kept) == len(found.changes):
            return found
        changes = tuple([change for change, _ in kept])
        positions = tuple([position for _, position in kept])
        return structs.replace(found, changes=changes, positions=positions)

    def _kept(self, session: Session, since: Cursor | None) -> Cursor | None:
        """The cursor, if nothing after it was removed, else `CursorExpired` is raised.

        The beginning is where the inbox begins now.
        """
        if since is None:
            return None
        begins = self._store.removed.get(session.user_id, 0)
        if since.seq >= begins:
            return since
        if since.epoch:
            raise expired()
        return Cursor("", begins)

    def _start(self, since: Cursor | None, changes: bool) -> ChangesPosition | None:
        """Where in the changes a poll or stream begins; raises `CursorEpoch`."""
        if since is None:
            return None
        if changes and not since.epoch:
            return ALL_CHANGES
        self._check_epoch(since)
        return since.changes

    def _check_epoch(self, cursor: Cursor) -> None:
        if cursor.epoch not in ("", self._store.epoch):
            raise CursorEpoch("begin again with since=0 or since=now")


def _outcome(ended: BaseException) -> str:
    """The outcome, for the metrics, of a poll or stream that was ended by an exception."""
    if isinstance(ended, DomainError):
        return ended.code
    return DISCONNECTED if isinstance(ended, CancelledError) else "error"
