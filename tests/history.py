"""What clients asked and were told, and a check that it is one that a correct service allows.

Clients record their sends and reads; a history can be written as lines of JSON and read again. One
pass finds what the workloads for Kafka of Jepsen look for: lost, doubled, skipped, reordered and
divergent messages, reads that miss what was acknowledged before, and messages of refused sends.
Every text is sent once, so that it identifies a message; times are any numbers that grow. Events
are in the order in which they ended, at least those of one reader.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import IO, Any, Final, Literal

import msgspec
from msgspec import Struct

Outcome = Literal["acknowledged", "refused", "unknown"]
ACKNOWLEDGED: Final = "acknowledged"
REFUSED: Final = "refused"
UNKNOWN: Final = "unknown"


class Stored(Struct, frozen=True):
    """A message as somebody was shown it; `sent_at` is empty where nobody looks at it."""

    seq: int
    sent_by: int
    text: str
    sent_at: str = ""

    @classmethod
    def of(cls, message: Mapping[str, Any]) -> Stored:
        """A message as it is in responses."""
        return cls(message["seq"], message["sent_by"], message["message"], message["sent_at"])


class Sent(Struct, frozen=True, tag="sent"):
    """A send, with all its repetitions: it began and ended; what was told if it was acknowledged.

    `unknown` is a send that got no answer, or one that says that the outcome is not known.
    """

    began: float
    ended: float
    sent_by: int
    received_by: int
    text: str
    outcome: Outcome
    seq: int = 0
    sent_at: str = ""


class Seen(Struct, frozen=True, tag="seen"):
    """A response: the messages after the seq `after`, and how many the inbox had if it tells.

    `reader` reads on with each response, and so sees every message once; None is a single read.
    """

    began: float
    ended: float
    user_id: int
    after: int
    messages: list[Stored]
    count: int | None = None
    reader: str | None = None


Event = Sent | Seen


def write(events: Iterable[Event], file: IO[bytes]) -> None:
    """Write events as lines of JSON."""
    for event in events:
        file.write(msgspec.json.encode(event) + b"\n")


def read(file: IO[bytes]) -> list[Event]:
    """Read events."""
    return [msgspec.json.decode(line, type=Event) for line in file]


def check(
    events: Sequence[Event],
    inboxes: Mapping[int, Sequence[Stored]],
    complete: Collection[str] = (),
) -> list[str]:
    """What is wrong with a history, given what the inboxes contain at the end; empty if nothing.

    The readers in `complete` read on until nothing more came after the last send had ended.
    """
    found: list[str] = []
    place: dict[str, tuple[int, Stored]] = {}
    times: Counter[str] = Counter()
    for user_id, inbox in inboxes.items():
        for number, message in enumerate(inbox, 1):
            if message.seq != number:
                found.append(f"gap: user {user_id} has seq {message.seq} in place {number}")
            times[message.text] += 1
            place[message.text] = (user_id, message)
    found += [
        f"doubled: {text!r} is stored {count} times" for text, count in times.items() if count > 1
    ]
    sends = {event.text: event for event in events if isinstance(event, Sent)}
    found += [f"unsent: {text!r} was never sent" for text in place if text not in sends]
    acknowledged: dict[int, list[Sent]] = defaultdict(list)
    for sent in sends.values():
        found += _check_sent(sent, place.get(sent.text))
        if sent.outcome == ACKNOWLEDGED:
            acknowledged[sent.received_by].append(sent)
    known = {user_id: _Acknowledged(sent) for user_id, sent in acknowledged.items()}
    nothing = _Acknowledged([])
    readers: dict[str, tuple[int, int]] = {}
    for event in events:
        if isinstance(event, Seen):
            before = known.get(event.user_id, nothing)
            found += _check_seen(event, inboxes.get(event.user_id, ()), before)
            if event.reader is not None:
                _, last = readers.get(event.reader, (event.user_id, event.after))
                if event.after != last:
                    found.append(f"skipped: {event.reader} went on at {event.after}, not {last}")
                end = event.messages[-1].seq if event.messages else event.after
                readers[event.reader] = (event.user_id, end)
    for reader in complete:
        if reader not in readers:
            found.append(f"missed: {reader} was shown nothing at all")
            continue
        user_id, end = readers[reader]
        last_sent = known.get(user_id, nothing).last
        if last_sent is not None and last_sent.seq > end:
            found.append(f"missed: {reader} was shown all up to {end}, but not {last_sent}")
    return found


class _Acknowledged:
    """The acknowledged sends to a user, to be asked for the last one at a time."""

    def __init__(self, sends: Iterable[Sent]) -> None:
        self._ended: list[float] = []
        self._last: list[Sent] = []
        for sent in sorted(sends, key=lambda each: each.ended):
            self._ended.append(sent.ended)
            behind = self._last and self._last[-1].seq > sent.seq
            self._last.append(self._last[-1] if behind else sent)

    @property
    def last(self) -> Sent | None:
        """The one with the greatest `seq`."""
        return self._last[-1] if self._last else None

    def before(self, time: float) -> Sent | None:
        """The one with the greatest `seq` of those that had ended before."""
        count = bisect_left(self._ended, time)
        return self._last[count - 1] if count else None


def _check_sent(sent: Sent, stored: tuple[int, Stored] | None) -> list[str]:
    if stored is None:
        lost = sent.outcome == ACKNOWLEDGED
        return [f"lost: {sent.text!r}, acknowledged as {sent.seq}"] if lost else []
    user_id, message = stored
    if sent.outcome == REFUSED:
        return [f"refused: {sent.text!r} is stored for user {user_id} as {message.seq}"]
    wrong = (user_id, message.sent_by) != (sent.received_by, sent.sent_by)
    if sent.outcome == ACKNOWLEDGED:
        wrong = wrong or (message.seq, message.sent_at) != (sent.seq, sent.sent_at)
    return [f"moved: {sent} is stored for user {user_id} as {message}"] if wrong else []


def _check_seen(seen: Seen, inbox: Sequence[Stored], acknowledged: _Acknowledged) -> list[str]:
    found = []
    end = seen.after + len(seen.messages)
    if [message.seq for message in seen.messages] != list(range(seen.after + 1, end + 1)):
        found.append(f"skipped: {seen}")
    elif seen.messages != list(inbox[seen.after : end]):
        found.append(f"divergent: {seen}, but {list(inbox[seen.after : end])}")
    if seen.count is not None:
        sent = acknowledged.before(seen.began)
        if sent is not None and sent.seq > seen.count:
            found.append(f"stale: {seen}, but before it {sent}")
    return found
