"""In-memory cache of the newest messages of each inbox.

Nearly every read asks for the newest messages: a poll for those since the last response, a page for
the latest ten. The cache serves such reads without a thread or a query.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from typing import Final

from chatd.model import Draft, InboxSlice, Message, ReadAfter, ReadPage
from chatd.store.results import inbox_slice, position, wanted_seqs

TAIL_LENGTH: Final = 32
"""How many messages of an inbox are cached."""
MAX_BYTES: Final = 64 << 20
"""Approximate limit on the size of the cache."""

MAX_READS: Final = 3
"""How often an inbox is read of which a message is revised during each read."""

_TAIL_BYTES: Final = 400
_MESSAGE_BYTES: Final = 160


class Tail:
    """The newest messages of one inbox, without gaps up to `last_seq`; possibly none.

    `before` is the stamp of a cursor before the first one, None if it is not known.
    """

    __slots__ = ("before", "last_seq", "messages", "size")

    def __init__(self, last_seq: int, messages: Sequence[Message], before: int | None) -> None:
        self.last_seq = last_seq
        self.messages = list(messages[-TAIL_LENGTH:])
        dropped = len(messages) - len(self.messages)
        if dropped:
            before = messages[dropped - 1].sent_at
        elif len(messages) == last_seq:
            before = 0
        self.before = before
        self.size = _TAIL_BYTES + sum(map(_size, self.messages))

    @property
    def worth(self) -> tuple[int, int, bool]:
        """Orders tails of an inbox by what they know."""
        return self.last_seq, len(self.messages), self.before is not None

    def stamp(self, seq: int) -> int | None:
        """The stamp of a cursor at `seq`; None if it is not known."""
        place = seq - self.last_seq + len(self.messages) - 1
        if place < -1 or seq > self.last_seq:
            return None
        return self.before if place < 0 else self.messages[place].sent_at

    def add(self, message: Message) -> int:
        """Append the next message and return by how many bytes the tail grew."""
        before = self.size
        self.last_seq = message.seq
        self.messages.append(message)
        self.size += _size(message)
        if len(self.messages) > TAIL_LENGTH:
            oldest = self.messages.pop(0)
            self.before = oldest.sent_at
            self.size -= _size(oldest)
        return self.size - before


class InboxCache:
    """The tails of the most recently updated inboxes, limited to `MAX_BYTES`.

    The cache is never behind what the store has returned to any caller: the store applies each
    commit and each read to it before returning the result.

    Results of concurrent queries may arrive in any order, and late ones must not bring back an
    inbox that was dropped meanwhile. Therefore the store takes a ticket with `begin_query` before
    each query, applies the result with that ticket and then calls `end_query`.
    """

    def __init__(self) -> None:
        self._tails: OrderedDict[int, Tail] = OrderedDict()
        self._size = 0
        self._last_ticket = 0
        self._open_tickets: OrderedDict[int, None] = OrderedDict()
        # Dropped users, each with the last ticket issued before; kept while older queries run.
        self._dropped: OrderedDict[int, int] = OrderedDict()
        # Of these, the ones that were dropped because a message was revised.
        self._revised: dict[int, int] = {}
        self._cleared = 0

    def get(self, query: ReadAfter | ReadPage) -> InboxSlice | None:
        """What `IStore.read` would return, or None if the cache does not know."""
        tail = self._tails.get(query.user_id)
        if tail is None:
            return None
        last = tail.last_seq
        if isinstance(query, ReadAfter):
            return _after(tail, last if query.seq is None else query.seq, query)
        end = position(query, last)
        stamp = tail.stamp(end)
        if stamp is None and end <= last:
            return None
        seqs = wanted_seqs(query, last)
        if not seqs:
            return InboxSlice(last, (), stamp)
        first = last - len(tail.messages) + 1
        if seqs.start < first:
            return None
        messages = tail.messages[seqs.start - first : seqs.stop - first]
        return inbox_slice(query, last, messages, stamp)

    def begin_query(self) -> int:
        """Call before querying the database; returns the ticket to apply the result with."""
        self._last_ticket += 1
        self._open_tickets[self._last_ticket] = None
        return self._last_ticket

    def end_query(self, ticket: int) -> None:
        """Call after the result was applied, or the query failed."""
        del self._open_tickets[ticket]
        oldest = next(iter(self._open_tickets), self._last_ticket + 1)
        while self._dropped and next(iter(self._dropped.values())) < oldest:
            user_id, _ = self._dropped.popitem(last=False)
            self._revised.pop(user_id, None)

    def apply_commit(self, ticket: int, messages: Iterable[Message]) -> None:
        """Add messages that this process committed; those of one inbox in the order of seq."""
        for message in messages:
            if self._is_outdated(ticket, message.received_by):
                # A query that began since may not have seen the message, and must not be used.
                self.drop(message.received_by)
            else:
                self._add(message)
        self._shrink()

    def apply_read(
        self, ticket: int, query: ReadAfter | ReadPage, inbox: InboxSlice | None
    ) -> None:
        """Use the result of a read; None if the inbox does not exist."""
        if inbox is None:
            self.drop(query.user_id)
            return
        if self._is_outdated(ticket, query.user_id):
            return
        messages = inbox.messages
        if isinstance(query, ReadPage):
            messages = messages[::-1]
        last = inbox.last_seq
        before = None if isinstance(query, ReadPage) else inbox.stamp
        if not messages or messages[-1].seq != last:
            messages = ()
            before = inbox.stamp if position(query, last) == last else None
        read, known = Tail(last, messages, before), self._tails.get(query.user_id)
        if known is None or read.worth > known.worth:
            self._put(query.user_id, read)
            self._shrink()
        elif _contradict(known, last, read.stamp(last)):
            self.clear()

    def apply_remote(self, message: Message) -> None:
        """Add a message that another process committed; those of one inbox in the order of seq."""
        self._add(message)
        self._shrink()

    def advance(self, user_id: int, last_seq: int, stamp: int | None) -> None:
        """Note that another process committed a message of that seq, whose text is unknown."""
        tail = self._tails.get(user_id)
        if tail is None or last_seq > tail.last_seq:
            self._put(user_id, Tail(last_seq, (), stamp))

    def extend(self, message: Message) -> None:
        """`apply_remote` for messages that are told of in any order, late ones among them.

        They only extend what is cached: by itself a message does not tell that it is the last one,
        or that it has not been revised. Results of running queries are ignored, too.
        """
        if message.received_by in self._tails:
            self.apply_remote(message)
        else:
            self.drop(message.received_by)

    def extend_end(self, user_id: int, last_seq: int, stamp: int | None) -> None:
        """`advance` for messages that are told of in any order, see `extend`."""
        if user_id in self._tails:
            self.advance(user_id, last_seq, stamp)
        else:
            self.drop(user_id)

    def drop(self, user_id: int) -> None:
        """Drop an inbox that was deleted or whose state is uncertain."""
        if self._open_tickets:
            self._dropped[user_id] = self._last_ticket
            self._dropped.move_to_end(user_id)
        self._remove(user_id)

    def drop_revised(self, user_id: int) -> None:
        """Drop an inbox of which a message was revised, or may have been."""
        self.drop(user_id)
        if self._open_tickets:
            self._revised[user_id] = self._last_ticket

    def may_be_older(self, ticket: int, user_ids: Iterable[int]) -> bool:
        """Whether an inbox was revised, or the cache cleared, since the query of `ticket` began."""
        revised = self._revised
        return ticket <= self._cleared or (
            bool(revised) and any(ticket <= revised.get(each, 0) for each in user_ids)
        )

    def drop_recipients(self, drafts: Iterable[Draft]) -> None:
        """Drop the inboxes of drafts whose append failed: they may have been committed."""
        for draft in drafts:
            self.drop(draft.received_by)

    def clear(self) -> None:
        """Clear the cache, and ignore the results of running queries."""
        self._tails.clear()
        self._size = 0
        self._cleared = self._last_ticket

    def _is_outdated(self, ticket: int, user_id: int) -> bool:
        return ticket <= self._cleared or ticket <= self._dropped.get(user_id, 0)

    def _add(self, message: Message) -> None:
        tail = self._tails.get(message.received_by)
        if tail is not None and message.seq == tail.last_seq + 1:
            self._size += tail.add(message)
            self._tails.move_to_end(message.received_by)
        elif tail is None or message.seq > tail.last_seq:
            self._put(message.received_by, Tail(message.seq, (message,), None))
        elif _contradict(tail, message.seq, message.sent_at):
            self.clear()

    def _remove(self, user_id: int) -> None:
        tail = self._tails.pop(user_id, None)
        if tail is not None:
            self._size -= tail.size

    def _put(self, user_id: int, tail: Tail) -> None:
        self._remove(user_id)
        self._tails[user_id] = tail
        self._size += tail.size

    def _shrink(self) -> None:
        while self._size > MAX_BYTES:
            self.drop(next(iter(self._tails)))


def _after(tail: Tail, seq: int, query: ReadAfter) -> InboxSlice | None:
    """`InboxCache.get` of the messages after a seq, which is asked for most often."""
    messages = tail.messages
    place = seq - tail.last_seq + len(messages)
    if place < 0:
        return None
    if place > len(messages):
        return InboxSlice(tail.last_seq, (), None)
    stamp = messages[place - 1].sent_at if place else tail.before
    if stamp is None:
        return None
    found = messages[place : place + query.limit]
    # A character has up to four bytes, of which the size counts two.
    if 2 * tail.size > query.max_bytes and len(found) > 1:
        return inbox_slice(query, tail.last_seq, found, stamp)
    return InboxSlice(tail.last_seq, tuple(found), stamp)


def _contradict(tail: Tail, seq: int, stamp: int | None) -> bool:
    """Whether the database now has another message than the tail.

    Then it was set back, for example because a standby has taken over that lacks some commits.
    """
    known = tail.stamp(seq)
    return known is not None and stamp is not None and known != stamp


def _size(message: Message) -> int:
    # Two bytes per character are a guess between ASCII's one and an emoji's four.
    return _MESSAGE_BYTES + 2 * len(message.text)
