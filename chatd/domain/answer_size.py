"""How much goes into one answer, by the bytes of its JSON.

A response that nobody reads stays in memory, and one that takes long to encode delays everybody.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from msgspec import structs

from chatd.model import Message
from chatd.model_sync import ChangesSlice, MessageChange

MAX_ANSWER_BYTES: Final = 1 << 20
"""Encoded bytes of messages in one answer. Ten of the largest messages (16 KiB unless configured
otherwise) fit whatever they consist of."""

MAX_PAGE_BYTES: Final = 2 << 20
"""The same for a page, of which clients may count on each `limit`: a hundred of the largest
messages fit unless configured otherwise, or more than a quarter of what they consist of is
escaped."""

MAX_READ_BYTES: Final = 160 << 10
"""UTF-8 bytes of texts: a list ends with the message with which it has so many. Those are ten of
the largest messages, which fit into an answer. What reads and encodes more at a time delays
everybody else."""

MAX_ESCAPE: Final = 6
"""The most bytes that a character becomes: `\\u0001`."""

_MEMBERS: Final = 200
"""More than the members of a message but its text become."""

# What JSON (RFC 8259) escapes, in two bytes, and in six.
_SHORT_ESCAPES: Final = b'"\\\b\t\n\f\r'
_LONG_ESCAPES: Final = bytes(each for each in range(0x20) if each not in _SHORT_ESCAPES)


def encoded_size(text: str) -> int:
    """The bytes of a text in JSON. To encode it would take ten times as long."""
    encoded = text.encode("utf-8")
    size = len(encoded)
    short = size - len(encoded.translate(None, _SHORT_ESCAPES))
    long = size - len(encoded.translate(None, _LONG_ESCAPES))
    return size + short + 5 * long + 2


def fitting(messages: Sequence[Message], least: int = 1, max_bytes: int = MAX_ANSWER_BYTES) -> int:
    """How many of these messages, from the first one, fit into an answer; at least `least`."""
    count = len(messages)
    if count <= least or _largest(messages) <= max_bytes:
        return count
    size = 0
    for number, message in enumerate(messages):
        size += _MEMBERS + encoded_size(message.text)
        if size > max_bytes and number >= least:
            return number
    return count


def _largest(messages: Sequence[Message]) -> int:
    """What the messages need at most."""
    characters = sum([len(message.text) for message in messages])
    return MAX_ESCAPE * characters + _MEMBERS * len(messages)


def fitting_changes(found: ChangesSlice) -> ChangesSlice:
    """The first of these changes that fit into an answer, at least one."""
    # Changes without a message are small, and a read has a hundred changes at most.
    numbers = [
        number for number, each in enumerate(found.changes) if isinstance(each, MessageChange)
    ]
    messages = found.messages
    fit = fitting(messages)
    if fit == len(messages):
        return found
    end = numbers[fit]
    return structs.replace(
        found,
        changes=found.changes[:end],
        positions=found.positions[:end],
        position=found.positions[end - 1],
        more=True,
    )
