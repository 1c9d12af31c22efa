"""What clients asked and were told, and a check that it is one that a correct service allows.

Clients record their sends and reads; a history can be written as lines of JSON and read again. One
pass finds what the workloads for Kafka of Jepsen look for: lost, doubled, skipped, reordered and
divergent messages, reads that miss what was acknowledged before, and messages of refused sends.
Every text is sent once, so that it identifies a message; times are any numbers that grow.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import IO, Literal

import msgspec
from msgspec import Struct

ACKNOWLEDGED = "acknowledged"
REFUSED = "refused"
UNKNOWN = "unknown"


class Stored(Struct, frozen=True):
    """A message as somebody was shown it."""

    seq: int
    sent_by: int
    text: str


class Sent(Struct, frozen=True, tag="sent"):
    """A send, with all its repetitions: it began and ended; its `seq` if it was acknowledged.

    `unknown` is a send that got no answer, or one that says that the outcome is not known.
    """

    began: float
    ended: float
    sent_by: int
    received_by: int
    text: str
    outcome: Literal["acknowledged", "refused", "unknown"]
    seq: int = 0


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


def check(events: Sequence[Event], inboxes: Mapping[int, Sequence[Stored]]) -> list[str]:
    """What is wrong with a history, given what the inboxes contain at the end; empty if nothing."""
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
    for sent in sends.values():
        found += _check_sent(sent, place.get(sent.text))
    acknowledged: dict[int, list[Sent]] = defaultdict(list)
    for sent in sends.values():
        if sent.outcome == ACKNOWLEDGED:
            acknowledged[sent.received_by].append(sent)
    readers: dict[str, int] = {}
    for event in events:
        if isinstance(event, Seen):
            found += _check_seen(event, inboxes.get(event.user_id, ()), acknowledged[event.user_id])
            if event.reader is not None:
                last = readers.get(event.reader, event.after)
                if event.after != last:
                    found.append(f"skipped: {event.reader} went on at {event.after}, not {last}")
                readers[event.reader] = event.messages[-1].seq if event.messages else event.after
    return found


def _check_sent(sent: Sent, stored: tuple[int, Stored] | None) -> list[str]:
    if stored is None:
        lost = sent.outcome == ACKNOWLEDGED
        return [f"lost: {sent.text!r}, acknowledged as {sent.seq}"] if lost else []
    user_id, message = stored
    if sent.outcome == REFUSED:
        return [f"refused: {sent.text!r} is stored for user {user_id} as {message.seq}"]
    wrong = (user_id, message.sent_by) != (sent.received_by, sent.sent_by)
    if wrong or (sent.outcome == ACKNOWLEDGED and message.seq != sent.seq):
        return [f"moved: {sent} is stored for user {user_id} as {message}"]
    return []


def _check_seen(seen: Seen, inbox: Sequence[Stored], acknowledged: Iterable[Sent]) -> list[str]:
    found = []
    end = seen.after + len(seen.messages)
    if [message.seq for message in seen.messages] != list(range(seen.after + 1, end + 1)):
        found.append(f"skipped: {seen}")
    elif seen.messages != list(inbox[seen.after : end]):
        found.append(f"divergent: {seen}, but {list(inbox[seen.after : end])}")
    if seen.count is not None:
        found += [
            f"stale: {seen}, but before it {sent}"
            for sent in acknowledged
            if sent.ended < seen.began and sent.seq > seen.count
        ]
    return found
