"""How much goes into one answer, by the bytes of its JSON.

A response that nobody reads stays in memory, and one that takes long to encode delays everybody.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec
from msgspec import structs

from chatd.model import Message
from chatd.model_sync import ChangesSlice, MessageChange

MAX_ANSWER_BYTES: Final = 1 << 20
"""Encoded bytes of messages in one answer. Ten of the largest messages (16 KiB unless configured
otherwise) fit whatever they consist of."""

MAX_PAGE_BYTES: Final = 2 * MAX_ANSWER_BYTES
"""The same of a page of the inbox: a hundred of the largest messages fit unless much of them has to
be escaped, so that numbers of pages mean what the client expects."""

MAX_ESCAPE: Final = 6
"""The most bytes that a character becomes: `\\u0001`."""

_MEMBERS: Final = 200
"""More than the members of a message but its text become."""

_encode: Final = msgspec.json.Encoder().encode


def fitting(messages: Sequence[Message], least: int = 1, most: int = MAX_ANSWER_BYTES) -> int:
    """How many of these messages, from the first one, fit into an answer of `most` bytes; at least
    `least`."""
    count = len(messages)
    if count <= least or _largest(messages) <= most:
        return count
    size = 0
    for number, message in enumerate(messages):
        size += _MEMBERS + len(_encode(message.text))
        if size > most and number >= least:
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
    messages = [each.message for each in found.changes if isinstance(each, MessageChange)]
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
