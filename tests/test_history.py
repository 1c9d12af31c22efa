"""The check of histories."""

from __future__ import annotations

import io
from typing import Any

import pytest

from tests.history import Event, Seen, Sent, Stored, check, read, write

ANN, BOB = 1, 2


def sent(text: str, seq: int = 0, began: float = 0, ended: float = 1, **options: Any) -> Sent:
    """A send from Ann to Bob, acknowledged if it has a `seq`."""
    outcome = options.pop("outcome", "acknowledged" if seq else "unknown")
    return Sent(began, ended, ANN, BOB, text, outcome, seq)


def stored(*texts: str) -> dict[int, list[Stored]]:
    """Bob's inbox."""
    return {BOB: [Stored(seq, ANN, text) for seq, text in enumerate(texts, 1)]}


def seen(after: int, *texts: str, **options: Any) -> Seen:
    """What Bob was shown."""
    messages = [Stored(seq, ANN, text) for seq, text in enumerate(texts, after + 1)]
    times = options.pop("began", 2), options.pop("ended", 3)
    return Seen(*times, BOB, after, messages, **options)


CORRECT: list[Event] = [
    sent("a", 1),
    sent("b", 2),
    sent("c"),
    sent("d", outcome="refused"),
    seen(0, "a", "b", count=2, reader="phone"),
    seen(2, "c", count=3, reader="phone"),
    seen(1, "b", "c", count=3),
]


def test_a_correct_history_has_no_faults() -> None:
    assert check(CORRECT, stored("a", "b", "c")) == []


@pytest.mark.parametrize(
    ("fault", "events", "inbox"),
    [
        ("lost", [sent("a", 1), sent("b", 2)], ("a",)),
        ("doubled", [sent("a")], ("a", "a")),
        ("unsent", [], ("a",)),
        ("refused", [sent("a", outcome="refused")], ("a",)),
        ("moved", [sent("a", 2), sent("b", 1)], ("a", "b")),
        ("divergent", [sent("a"), sent("b"), seen(0, "b")], ("a", "b")),
        ("divergent", [sent("a"), seen(0, "a", "b")], ("a",)),
        ("skipped", [sent("a"), sent("b"), seen(0, "a", reader="x"), seen(2, reader="x")], "ab"),
        ("stale", [sent("a", 1), seen(0, count=0)], ("a",)),
    ],
)
def test_faults_are_found(fault: str, events: list[Event], inbox: tuple[str, ...]) -> None:
    assert {line.partition(":")[0] for line in check(events, stored(*inbox))} == {fault}


def test_gaps_are_found() -> None:
    inbox = {BOB: [Stored(1, ANN, "a"), Stored(3, ANN, "b")]}
    [line] = check([sent("a"), sent("b")], inbox)
    assert line.startswith("gap")


def test_a_reader_that_is_complete_has_seen_what_was_acknowledged() -> None:
    events: list[Event] = [sent("a", 1), sent("b", 2), sent("c"), seen(0, "a", reader="phone")]
    inbox = stored("a", "b", "c")
    [missed] = check(events, inbox, ["phone"])
    assert missed.startswith("missed: phone was shown all up to 1")
    assert check([*events, seen(1, "b", reader="phone")], inbox, ["phone"]) == []
    assert check(events, inbox) == []
    [missed] = check(events, inbox, ["tablet"])
    assert missed == "missed: tablet was shown nothing at all"


def test_another_time_than_that_of_the_acknowledgement_is_found() -> None:
    inbox = {BOB: [Stored(1, ANN, "a", "2026-11-27T00:00:00.000001Z")]}
    [moved] = check([sent("a", 1)], inbox)
    assert moved.startswith("moved")


def test_a_stale_read_is_compared_with_the_last_acknowledgement_before_it() -> None:
    events: list[Event] = [
        sent("c", 3, ended=1.5),
        sent("a", 1),
        sent("b", 2, ended=3),
        seen(0, count=2),
    ]
    [stale] = check(events, stored("a", "b", "c"))
    assert "text='c'" in stale


def test_messages_are_taken_from_responses() -> None:
    message = {"seq": 1, "sent_by": ANN, "message": "a", "sent_at": "now", "received_by": BOB}
    assert Stored.of(message) == Stored(1, ANN, "a", "now")


def test_a_read_that_began_before_the_acknowledgement_may_miss_it() -> None:
    assert check([sent("a", 1, ended=5), seen(0, count=0)], stored("a")) == []


def test_histories_are_lines_of_json() -> None:
    file = io.BytesIO()
    write(CORRECT, file)
    file.seek(0)
    assert len(file.getvalue().splitlines()) == len(CORRECT)
    assert read(file) == CORRECT
