"""Changes as text, as `chatd tail --changes` prints them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import cast

import pytest
from msgspec.structs import replace

from chatd.cli.messages import TextFormat
from chatd.cli.style import PLAIN
from chatd.cli.transcript import Transcript
from chatd.client import (
    Change,
    ChatClient,
    Message,
    MessageChanged,
    MessageSent,
    PeerMoved,
    ReadMoved,
    User,
)
from tests.store.sqlite.database import run_now

LONG_AGO = datetime(2026, 1, 2, 12, tzinfo=UTC)
ANN, BOB = 1, 2


class Names:
    """A client that knows users only."""

    async def user(self, user_id: int) -> User:
        return User(user_id, {ANN: "ann", BOB: "bob"}[user_id], "", LONG_AGO, None)


def text(item: Message | Change, transcript: Transcript | None = None) -> str | None:
    return run_now(TextFormat(cast(ChatClient, Names()), ANN, transcript).format(item))


def message(sent_by: int, received_by: int, text: str = "hai") -> Message:
    return Message(seq=4, sent_by=sent_by, text=text, sent_at=LONG_AGO, received_by=received_by)


RECEIVED, SENT = message(BOB, ANN), message(ANN, BOB)
AT = LONG_AGO.astimezone().strftime("%H:%M")
DAY = LONG_AGO.astimezone().strftime("%Y-%m-%d")


@pytest.mark.parametrize(
    ("item", "expected"),
    [
        (RECEIVED, f"{AT} bob: hai"),
        (MessageSent(SENT), f"{AT} ann to bob: hai"),
        (MessageSent(message(ANN, ANN)), None),
        (
            MessageChanged(replace(RECEIVED, edited_at=LONG_AGO)),
            f"(bob edited the message of {DAY} {AT}: hai)",
        ),
        (
            MessageChanged(replace(SENT, text="", deleted_at=LONG_AGO)),
            f"(ann deleted the message of {DAY} {AT} to bob)",
        ),
        (ReadMoved(BOB, 7), "(what bob sent is read up to 7)"),
        (PeerMoved(BOB, 7, 0), "(bob has received message 7)"),
        (PeerMoved(BOB, 7, 6), "(bob has received message 7, read 6)"),
    ],
)
def test_items_as_text(item: Message | Change, expected: str | None) -> None:
    assert text(item) == expected


def test_an_edit_of_today_has_no_date() -> None:
    now = datetime.now(UTC)
    if (now - timedelta(minutes=1)).astimezone().date() == now.astimezone().date():
        edited = replace(RECEIVED, sent_at=now - timedelta(minutes=1), edited_at=now)
        at = edited.sent_at.astimezone().strftime("%H:%M")
        assert text(MessageChanged(edited)) == f"(bob edited the message of {at}: hai)"


def test_what_is_sent_is_below_its_day_in_a_terminal() -> None:
    shown = text(MessageSent(SENT), Transcript(PLAIN, ANN))
    assert shown is not None
    assert shown.split("\n") == ["— Friday, 2 January 2026 —", f"{AT} ann to bob: hai"]


def test_texts_cannot_control_the_terminal() -> None:
    shown = text(MessageChanged(message(BOB, ANN, "\x1b[2J")))
    assert shown is not None
    assert "\x1b" not in shown
