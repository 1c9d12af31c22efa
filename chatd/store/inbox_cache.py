"""The ends of inboxes in memory, for a store that only one process writes to.

Nearly every read asks for the newest messages of an inbox: a poll for what came since its last
answer, a page for the latest ten. They are answered from here, without a thread or a query.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from typing import Final

from chatd.model import InboxSlice, Message, ReadAfter, ReadPage
from chatd.store.results import inbox_slice, wanted

LENGTH: Final = 32
"""Messages kept of one inbox."""
BYTES: Final = 64 << 20
"""What all tails may take together, roughly."""

_TAIL_BYTES: Final = 400
_MESSAGE_BYTES: Final = 160


class Tail:
    """The last messages of one inbox, without gaps up to `last_seq`; maybe none of them."""

    __slots__ = ("last_seq", "messages", "size")

    def __init__(self, last_seq: int, messages: Sequence[Message]) -> None:
        self.last_seq = last_seq
        self.messages = list(messages[-LENGTH:])
        self.size = _TAIL_BYTES + sum(map(_size, self.messages))

    def add(self, message: Message) -> int:
        """Append the next message; returns by how many bytes the tail grew."""
        before = self.size
        self.last_seq = message.seq
        self.messages.append(message)
        self.size += _size(message)
        if len(self.messages) > LENGTH:
            self.size -= _size(self.messages.pop(0))
        return self.size - before


class InboxCache:
    """The tails of the inboxes that were used most recently.

    What they say is never behind what has been told to anyone: a store adds messages when their
    commit is known and before it says so, and notes what its reads have found.

    Answers of the database may overtake each other, and what was said to `drop` meanwhile. So
    whoever asks it takes a ticket before, notes the answer with it, and gives it back.
    """

    def __init__(self) -> None:
        self._inbox_cache: OrderedDict[int, Tail] = OrderedDict()
        self._size = 0
        self._last_ticket = 0
        self._tickets: OrderedDict[int, None] = OrderedDict()
        # The last ticket given out before a user was dropped, as long as one as old is out.
        self._dropped: OrderedDict[int, int] = OrderedDict()
        self._cleared = 0

    @property
    def remembered_drops(self) -> int:
        """How many drops are remembered for what is still asked."""
        return len(self._dropped)

    def answer(self, query: ReadAfter | ReadPage) -> InboxSlice | None:
        """What `IStore.read` would answer, or None where that is not known here."""
        tail = self._inbox_cache.get(query.user_id)
        if tail is None:
            return None
        last = tail.last_seq
        seqs = wanted(query, last)
        if not seqs:
            return InboxSlice(last, ())
        first = last - len(tail.messages) + 1
        if seqs.start < first:
            return None
        return inbox_slice(query, last, tail.messages[seqs.start - first : seqs.stop - first])

    def asked(self) -> int:
        """The database is being asked; gives the ticket that the answer is noted with."""
        self._last_ticket += 1
        self._tickets[self._last_ticket] = None
        return self._last_ticket

    def answered(self, ticket: int) -> None:
        """The database has answered, which was noted, or could not."""
        del self._tickets[ticket]
        oldest = next(iter(self._tickets), self._last_ticket + 1)
        while self._dropped and next(iter(self._dropped.values())) < oldest:
            self._dropped.popitem(last=False)

    def committed(self, ticket: int, messages: Iterable[Message]) -> None:
        """New messages are durable; each inbox's come in the order of their seq."""
        for message in messages:
            if not self._is_overtaken(ticket, message.received_by):
                self._add(message)
        self._shrink()

    def found(self, ticket: int, query: ReadAfter | ReadPage, inbox: InboxSlice) -> None:
        """A read has found this."""
        if self._is_overtaken(ticket, query.user_id):
            return
        messages = inbox.messages
        if isinstance(query, ReadPage):
            messages = messages[::-1]
        if messages and messages[-1].seq != inbox.last_seq:
            messages = ()
        tail = self._inbox_cache.get(query.user_id)
        if tail is None or (inbox.last_seq, len(messages)) > (tail.last_seq, len(tail.messages)):
            self._put(query.user_id, Tail(inbox.last_seq, messages))
            self._shrink()

    def told(self, message: Message) -> None:
        """Others have committed this; of each inbox they are told in the order of their seq."""
        self._add(message)
        self._shrink()

    def moved(self, user_id: int, last_seq: int) -> None:
        """Others have committed a message of that seq, which is not known here."""
        tail = self._inbox_cache.get(user_id)
        if tail is None or last_seq > tail.last_seq:
            self._put(user_id, Tail(last_seq, ()))

    def drop(self, user_id: int) -> None:
        """The inbox is gone, or what it holds is not certain: let the database say."""
        if self._tickets:
            self._dropped[user_id] = self._last_ticket
            self._dropped.move_to_end(user_id)
        self._take_out(user_id)

    def clear(self) -> None:
        """Nothing is certain: let the database say, which was not asked yet."""
        self._inbox_cache.clear()
        self._size = 0
        self._cleared = self._last_ticket

    def _is_overtaken(self, ticket: int, user_id: int) -> bool:
        return ticket <= self._cleared or ticket <= self._dropped.get(user_id, 0)

    def _add(self, message: Message) -> None:
        tail = self._inbox_cache.get(message.received_by)
        if tail is not None and message.seq == tail.last_seq + 1:
            self._size += tail.add(message)
            self._inbox_cache.move_to_end(message.received_by)
        elif tail is None or message.seq > tail.last_seq:
            self._put(message.received_by, Tail(message.seq, (message,)))

    def _take_out(self, user_id: int) -> None:
        tail = self._inbox_cache.pop(user_id, None)
        if tail is not None:
            self._size -= tail.size

    def _put(self, user_id: int, tail: Tail) -> None:
        self._take_out(user_id)
        self._inbox_cache[user_id] = tail
        self._size += tail.size

    def _shrink(self) -> None:
        while self._size > BYTES:
            self.drop(next(iter(self._inbox_cache)))


def _size(message: Message) -> int:
    # Two bytes a character is a guess between ASCII's one and an emoji's four.
    return _MESSAGE_BYTES + 2 * len(message.text)
