"""How many messages go into one answer."""

from __future__ import annotations

import msgspec

from chatd.domain.answer_size import (
    MAX_ANSWER_BYTES,
    MAX_PAGE_BYTES,
    encoded_size,
    fitting,
    fitting_changes,
)
from chatd.model import ChangesPosition, Message
from chatd.model_sync import ChangesSlice, MessageChange, ReadChange


def message(text: str, seq: int = 1) -> Message:
    return Message(1, seq, 2, 0, text)


def test_the_size_is_that_of_the_encoded_text() -> None:
    every = "".join(map(chr, range(0xD800))) + "🙂\U0010ffff"
    for text in ("", every, *map(chr, range(256))):
        assert encoded_size(text) == len(msgspec.json.encode(text)), ascii(text)


def test_messages_fit_by_their_encoded_bytes() -> None:
    for character, size in (("x", 1), ("\x01", 6), ("é", 2), ("€", 3), ("🙂", 4), ('"', 2)):
        text = character * (MAX_ANSWER_BYTES // 16 // size)
        assert fitting([message(text)] * 20) == 15, character


def test_at_least_so_many_are_taken() -> None:
    large = message("x" * (MAX_ANSWER_BYTES + 1))
    assert fitting([large] * 3) == 1
    assert fitting([large] * 3, 2) == 2
    assert fitting([large] * 3, 5) == 3
    assert fitting([]) == 0


def test_more_fit_where_more_bytes_may_be() -> None:
    half = message("x" * (MAX_ANSWER_BYTES // 2))
    assert fitting([half] * 5) == 1
    assert fitting([half] * 5, max_bytes=MAX_PAGE_BYTES) == 3


def test_small_messages_all_fit() -> None:
    assert fitting([message("x" * 1000)] * 100) == 100


def test_changes_are_cut_after_the_last_message_that_fits() -> None:
    large = message("x" * (MAX_ANSWER_BYTES // 2))
    changes = (
        ReadChange(1, 1),
        MessageChange("sent", large),
        ReadChange(1, 2),
        MessageChange("sent", large),
        ReadChange(1, 3),
    )
    positions = tuple(map(ChangesPosition, range(1, 6)))
    found = ChangesSlice(changes, positions, positions[-1], False)
    cut = fitting_changes(found)
    assert cut == ChangesSlice(changes[:3], positions[:3], positions[2], True)
    small = ChangesSlice(changes[:3], positions[:3], positions[2], False)
    assert fitting_changes(small) is small
