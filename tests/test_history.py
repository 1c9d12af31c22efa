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


def test_a_read_that_began_before_the_acknowledgement_may_miss_it() -> None:
    assert check([sent("a", 1, ended=5), seen(0, count=0)], stored("a")) == []


def test_histories_are_lines_of_json() -> None:
    file = io.BytesIO()
    write(CORRECT, file)
    file.seek(0)
    assert len(file.getvalue().splitlines()) == len(CORRECT)
    assert read(file) == CORRECT
