"""The list of conversations."""

from __future__ import annotations

from datetime import UTC, date, datetime

from chatd.cli.conversations import table
from chatd.cli.graphemes import text_width
from chatd.client import ConversationSummary, Message

ANN, BOB = 1, 2
NOON = datetime(2026, 11, 27, 12, tzinfo=UTC)
TODAY = NOON.astimezone().date()


def summary(
    user_id: int = BOB,
    username: str | None = "bob",
    text: str = "hai",
    sent_by: int = BOB,
    *,
    unread: int = 0,
    peer_read: int = 0,
    peer_delivered: int = 0,
    deleted: bool = False,
) -> ConversationSummary:
    message = Message(
        seq=5,
        sent_by=sent_by,
        text=text,
        sent_at=NOON,
        received_by=ANN if sent_by == user_id else user_id,
        deleted_at=NOON if deleted else None,
    )
    return ConversationSummary(user_id, username, message, unread, 0, peer_read, peer_delivered)


def last_columns(*listed: ConversationSummary) -> list[str]:
    """The last messages as they are listed."""
    [head, *lines] = table(listed, ANN, TODAY, None)
    return [line[head.index("MESSAGE") :] for line in lines]


def test_conversations_are_aligned() -> None:
    listed = [
        summary(unread=3),
        summary(3, "Löwe", "two\nlines", 3, unread=100),
        summary(4, None, "", 4, deleted=True),
    ]
    at = NOON.astimezone().strftime("%H:%M")
    assert table(listed, ANN, TODAY, None) == [
        "USER            UNREAD  LAST   MESSAGE",
        f"bob             3       {at}  hai",
        f"Löwe            100+    {at}  two lines",
        f"deleted user 4          {at}  (deleted)",
    ]
    [_, line, *_] = table(listed, ANN, date(2027, 1, 1), None)
    assert line == f"bob             3       {TODAY:%Y-%m-%d}  hai"


def test_own_messages_tell_how_far_they_came() -> None:
    assert last_columns(
        summary(sent_by=ANN),
        summary(sent_by=ANN, peer_delivered=4),
        summary(sent_by=ANN, peer_delivered=5, peer_read=4),
        summary(sent_by=ANN, peer_delivered=5, peer_read=5),
        summary(ANN, "ann", "a note", ANN, peer_read=5),
    ) == ["you: hai", "you: hai", "you (delivered): hai", "you (read): hai", "a note"]


def test_lines_fit_into_the_terminal() -> None:
    for columns in (40, 80, 132):
        lines = table([summary(text="wörd 🦁 " * 50)], ANN, TODAY, columns)
        assert max(map(text_width, lines)) < columns
        assert lines[1].endswith("…")
    # There is always room for the beginning of a message.
    assert "long enou…" in table([summary(text="long enough")], ANN, TODAY, 5)[1]


def test_texts_and_names_cannot_control_the_terminal() -> None:
    [_, line] = table([summary(username="\x1b[31m", text="a\x1b[2J\u202eb")], ANN, TODAY, None)
    assert line.isprintable()
