"""`ChatSession`: a conversation on a screen in memory, with a scripted client."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from typing import cast

import pytest
from msgspec.structs import replace
from twisted.internet.defer import Deferred, DeferredQueue
from twisted.internet.task import Clock

from chatd.cli.chat_session import SLOW_SECONDS, ChatSession
from chatd.cli.session import SavedLogin
from chatd.cli.style import PLAIN, Style
from chatd.client import (
    APIError,
    Change,
    ChatClient,
    ChatError,
    Conversation,
    Message,
    MessageChanged,
    MessageSent,
    PeerMoved,
    ReadMoved,
    Sent,
    Unreachable,
    User,
)
from tests.cli.screen import Screen
from tests.doubles import cancel, result_of

NOON = datetime(2026, 11, 27, 12, tzinfo=UTC)
ANN, BOB, CAT = 1, 2, 3
NAMES = {ANN: "ann", BOB: "bob", CAT: "cat"}
EMPTY = Conversation((), None)
CTRL_C, CTRL_D, UP = "\x03", "\x04", "\x1b[A"


class ScriptedClient:
    """Delivers what the test puts into `arriving`; sends as `sending` says and records texts."""

    def __init__(self) -> None:
        self.arriving: DeferredQueue[Message | Change | ChatError] = DeferredQueue()
        self.read: list[tuple[int, int]] = []
        self.marking: Callable[[], Deferred[None] | None] = lambda: None
        self.report: Callable[[ChatError | None], object] = print
        self.texts: list[str] = []
        self.sending: Callable[[], Deferred[None] | None] = lambda: None
        self.lookup: ChatError | None = None

    async def follow(
        self,
        since: str,
        *,
        changes: bool = False,
        on_connection_change: Callable[[ChatError | None], object],
    ) -> AsyncIterator[Message | Change]:
        self.report = on_connection_change
        self.changes = changes
        while True:
            arrived = await self.arriving.get()
            if isinstance(arrived, ChatError):
                raise arrived
            yield arrived

    async def send(self, user_id: int, text: str) -> Sent:
        waiting = self.sending()
        if waiting is not None:
            await waiting
        self.texts.append(text)
        return Sent(message(ANN, text, seq=len(self.texts), received_by=user_id), False)

    async def mark_read(self, user_id: int, seq: int) -> None:
        self.read.append((user_id, seq))
        waiting = self.marking()
        if waiting is not None:
            await waiting

    async def user(self, user_id: int) -> User:
        if self.lookup is not None:
            raise self.lookup
        return user(user_id)


def user(user_id: int) -> User:
    return User(user_id, NAMES[user_id], "", NOON, None)


def message(sent_by: int, text: str, seq: int = 1, received_by: int = ANN) -> Message:
    return Message(seq=seq, sent_by=sent_by, text=text, sent_at=NOON, received_by=received_by)


class Chat:
    """ann chats with bob."""

    def __init__(
        self,
        style: Style = PLAIN,
        columns: int = 80,
        history: Conversation = EMPTY,
        *,
        changes: bool = True,
    ) -> None:
        self.client = ScriptedClient()
        self.screen = Screen(columns)
        self.clock = Clock()
        self.session = ChatSession(
            cast(ChatClient, self.client),
            SavedLogin("http://chat.example", "ann", ANN, "token"),
            user(BOB),
            write=self.screen.write,
            size=self.screen.size,
            style=style,
            clock=self.clock,
        )
        self.ended = Deferred.fromCoroutine(self.session.run("cursor", history, changes=changes))

    def type(self, keys: str) -> None:
        self.session.editor.feed(keys.encode())

    @property
    def rows(self) -> list[str]:
        return self.screen.text.split("\n")


def test_messages_of_both_are_shown_below_their_day() -> None:
    chat = Chat()
    chat.client.arriving.put(message(BOB, "hello"))
    chat.type("hi\r")
    assert chat.client.texts == ["hi"]
    day, first, second, prompt = chat.rows[1:]
    assert day == "— Friday, 27 November 2026 —"
    assert first.endswith(" bob: hello")
    assert second.endswith(" ann: hi")
    assert prompt == "ann>"


@pytest.mark.parametrize("lookup", [None, APIError(404, "user_not_found", "no such user")])
def test_a_message_of_somebody_else_is_a_note_above_the_draft(lookup: ChatError | None) -> None:
    chat = Chat()
    chat.client.lookup = lookup
    chat.type("half a sen")
    chat.client.arriving.put(message(CAT, "are you\n\there?"))
    name = "cat" if lookup is None else "deleted user 3"
    assert chat.rows[1:] == [f"({name}: are you here?)", "ann> half a sen"]


def test_a_note_takes_one_row() -> None:
    chat = Chat(columns=24)
    start = len(chat.rows)
    chat.client.arriving.put(message(CAT, "words \x1b " * 1000))
    assert chat.rows[start - 1 :] == ["(cat: words \\x1b words …)"[:21] + "…)", "ann>"]


def test_a_note_is_shown_if_its_sender_cannot_be_looked_up() -> None:
    chat = Chat()
    chat.client.lookup = Unreachable("Connection refused")
    chat.client.arriving.put(message(CAT, "one"))
    chat.client.lookup = None
    chat.client.arriving.put(message(CAT, "two"))
    assert chat.rows[1:-1] == ["(user 3: one)", "(cat: two)"]


def test_messages_to_oneself_are_notes_in_other_conversations() -> None:
    chat = Chat()
    chat.client.arriving.put(message(ANN, "remember"))
    assert chat.rows[1:-1] == ["(ann: remember)"]


def test_help_is_shown_and_not_sent() -> None:
    chat = Chat()
    chat.type("/help\r")
    lines = chat.rows[1:-1]
    assert '//text     send "/text"' in lines
    assert max(map(len, lines)) < 40
    assert chat.client.texts == []


@pytest.mark.parametrize("line", ["/nonsense", "/Nonsense bob", "/", "/ x", "/helpme"])
def test_unknown_commands_are_errors_and_not_sent(line: str) -> None:
    chat = Chat()
    chat.type(f"{line}\r")
    command = line.split(maxsplit=1)[0].lower()
    assert chat.rows[1].startswith(f"no such command: {command} (try /help)")
    assert chat.client.texts == []
    chat.type(UP)
    assert chat.rows[-1] == f"ann> {line}"


def test_two_slashes_send_one() -> None:
    chat = Chat()
    chat.type("//help\r")
    assert chat.client.texts == ["/help"]


def test_a_paste_of_several_lines_is_one_message() -> None:
    chat = Chat()
    chat.type("\x1b[200~one\r  two\r\x1b[201~")
    assert chat.client.texts == []
    chat.type("\r")
    assert chat.client.texts == ["one\n  two"]


def test_blank_lines_are_not_sent() -> None:
    chat = Chat()
    chat.type("\r  \r\x1b[200~\r\r\x1b[201~\r")
    assert chat.client.texts == []


@pytest.mark.parametrize("keys", ["/quit\r", "/QUIT now\r", CTRL_D])
def test_quit_and_ctrl_d_leave(keys: str) -> None:
    chat = Chat()
    chat.type("bye\r" + keys)
    result_of(chat.ended)
    assert not chat.session.interrupted
    assert chat.client.texts == ["bye"]
    assert chat.clock.getDelayedCalls() == []
    assert chat.rows[-1].endswith("ann: bye")


def test_ctrl_c_clears_the_draft_and_then_leaves() -> None:
    chat = Chat()
    chat.type("draft" + CTRL_C)
    assert not chat.ended.called
    assert chat.rows[-1] == "ann>"
    chat.type(CTRL_C)
    result_of(chat.ended)
    assert chat.session.interrupted


def test_what_was_entered_is_sent_before_the_end() -> None:
    chat = Chat()
    waiting: Deferred[None] = Deferred()
    chat.client.sending = lambda: waiting
    chat.type("bye\r" + CTRL_D)
    assert not chat.ended.called
    assert chat.rows[1:] == ["ann>"]
    chat.clock.advance(SLOW_SECONDS)
    assert chat.rows[1:] == ["(still sending, Ctrl-C gives up)", "ann>"]
    chat.type("too late\r")
    assert chat.rows[-2:] == ["not sent: too late", "ann>"]
    waiting.callback(None)
    result_of(chat.ended)
    assert chat.client.texts == ["bye"]


def test_ctrl_c_at_the_end_gives_up_and_tells_what_was_not_sent() -> None:
    chat = Chat()
    chat.client.sending = Deferred
    chat.type("one\rtwo\r" + CTRL_D)
    assert not chat.ended.called
    chat.type(CTRL_C)
    result_of(chat.ended)
    assert chat.session.interrupted
    assert chat.rows[1:] == ["perhaps not sent: one", "not sent: two"]


def test_errors_of_sends_are_coloured() -> None:
    chat = Chat(Style(colours=True))

    def refuse() -> None:
        raise APIError(413, "message_too_long", "too long")

    chat.client.sending = refuse
    chat.type("x\r")
    assert "\x1b[31mnot sent: too long\x1b[0m" in chat.screen.written


def test_lost_and_restored_connections_are_reported() -> None:
    chat = Chat()
    chat.client.report(Unreachable("Connection lost"))
    chat.client.report(None)
    assert chat.rows[1:-1] == ["(offline, trying again)", "(connected again)"]


def test_sends_are_repeated_while_the_service_is_away_until_the_end() -> None:
    chat = Chat()
    attempts: list[Deferred[None]] = []

    def attempt() -> Deferred[None]:
        attempts.append(Deferred())
        return attempts[-1]

    chat.client.sending = attempt
    chat.type("x\r")
    attempts[0].errback(Unreachable("Connection refused"))
    chat.type(CTRL_D)
    attempts[1].errback(Unreachable("Connection refused"))
    with pytest.raises(Unreachable):
        result_of(chat.ended)
    assert len(attempts) == 2
    assert chat.rows[1:] == ["perhaps not sent: x"]


def test_a_signal_ends_it_and_tells_what_was_not_sent() -> None:
    chat = Chat()
    chat.client.sending = Deferred
    chat.type("one\rdraft")
    cancel(chat.ended)
    assert chat.rows[1:] == ["perhaps not sent: one"]


def test_an_error_that_retrying_does_not_solve_ends_it() -> None:
    chat = Chat()
    error = APIError(401, "unauthorized", "the token was revoked")
    chat.client.arriving.put(error)
    with pytest.raises(APIError):
        result_of(chat.ended)
    assert len(chat.rows) == 1


# What is read, and what changes


def test_the_prompt_says_how_far_the_last_message_came() -> None:
    chat = Chat()
    chat.type("hi\r")
    assert chat.rows[-1] == "ann>"
    for change, prompt in [
        (PeerMoved(CAT, 5, 5), "ann>"),
        (PeerMoved(BOB, 1, 0), "ann (delivered)>"),
        (PeerMoved(BOB, 1, 1), "ann (read)>"),
    ]:
        chat.client.arriving.put(change)
        assert chat.rows[-1] == prompt
    rows = len(chat.rows)
    chat.type("draft")
    assert chat.rows[-1] == "ann (read)> draft"
    assert len(chat.rows) == rows
    chat.type("\r")
    assert chat.rows[-1] == "ann>"
    chat.client.arriving.put(PeerMoved(BOB, 2, 1))
    assert chat.rows[-1] == "ann (delivered)>"


def test_history_is_marked_as_read_and_its_state_is_shown() -> None:
    sent = (message(ANN, "mine", 7, BOB), message(BOB, "second", 4), message(BOB, "first", 3))
    chat = Chat(history=Conversation(sent, None, 7, 7))
    assert [row.partition(": ")[2] for row in chat.rows[2:-1]] == ["first", "second", "mine"]
    assert chat.rows[-1] == "ann (read)>"
    assert chat.client.read == [(BOB, 3), (BOB, 4)]


def test_positions_are_marked_one_request_at_a_time() -> None:
    chat = Chat()
    requests: list[Deferred[None]] = []

    def mark() -> Deferred[None]:
        requests.append(Deferred())
        return requests[-1]

    chat.client.marking = mark
    for seq in (1, 2, 3):
        chat.client.arriving.put(message(BOB, "x", seq))
    chat.client.arriving.put(message(CAT, "not this conversation", 4))
    assert chat.client.read == [(BOB, 1)]
    requests[0].callback(None)
    assert chat.client.read == [(BOB, 1), (BOB, 3)]
    requests[1].errback(Unreachable("Connection refused"))
    chat.client.arriving.put(message(BOB, "x", 5))
    assert chat.client.read == [(BOB, 1), (BOB, 3), (BOB, 5)]
    chat.type(CTRL_D)
    result_of(chat.ended)


def test_edited_and_deleted_messages_are_replaced_where_they_are() -> None:
    chat = Chat()
    received = message(BOB, "at fuve")
    chat.client.arriving.put(received)
    chat.type("fine\rdra")
    edited = replace(received, text="at\nfive", edited_at=NOON)
    at = NOON.astimezone().strftime("%H:%M")
    for _ in range(2):
        chat.client.arriving.put(MessageChanged(edited))
        assert chat.rows[2:] == [
            f"{at} bob: at",
            f"{' ' * len(at)}      five (edited)",
            f"{at} ann: fine",
            "ann> dra",
        ]
    chat.type("ft")
    chat.client.arriving.put(MessageChanged(replace(edited, text="", deleted_at=NOON)))
    assert chat.rows[2:] == [f"{at} bob: (deleted)", f"{at} ann: fine", "ann> draft"]
    own = replace(message(ANN, "good", 1, BOB), edited_at=NOON)
    chat.client.arriving.put(MessageChanged(own))
    chat.type("\r")
    assert chat.rows[2:-1] == [
        f"{at} bob: (deleted)",
        f"{at} ann: good (edited)",
        f"{at} ann: draft",
    ]


def test_changes_of_messages_that_are_out_of_view_are_told_once() -> None:
    chat = Chat()
    received = replace(message(BOB, "at fuve"), sent_at=NOON.replace(year=2025))
    chat.client.arriving.put(received)
    for seq in range(2, 30):
        chat.client.arriving.put(message(BOB, "more", seq))
    start = len(chat.rows) - 1
    edited = replace(received, text="at\nfive", edited_at=NOON)
    for _ in range(2):
        chat.client.arriving.put(MessageChanged(edited))
    chat.client.arriving.put(MessageChanged(replace(edited, text="", deleted_at=NOON)))
    # From before the history that is shown.
    own = replace(message(ANN, "new", 1, BOB), sent_at=received.sent_at, edited_at=NOON)
    chat.client.arriving.put(MessageChanged(own))
    when = received.sent_at.astimezone().strftime("%Y-%m-%d %H:%M")
    assert chat.rows[start:-1] == [
        f"(bob edited the message of {when}: at",
        "five)",
        f"(bob deleted the message of {when})",
        f"(you edited the message of {when}: new)",
    ]


@pytest.mark.parametrize("narrower", [True, False])
def test_after_the_size_has_changed_changes_are_told_below(narrower: bool) -> None:
    chat = Chat()
    chat.client.arriving.put(message(BOB, "x" * 60))
    if narrower:
        chat.screen.resize(40)
        chat.session.editor.resize()
    else:
        chat.type("\x0c")
    # Of today, so that the line has no date and fits.
    edited = replace(message(BOB, "y"), sent_at=datetime.now(UTC), edited_at=NOON)
    chat.client.arriving.put(MessageChanged(edited))
    assert chat.rows[-2].startswith("(bob edited the message of ")


def test_an_edited_message_is_told_once_if_it_arrives_edited() -> None:
    chat = Chat()
    edited = replace(message(BOB, "x"), edited_at=NOON)
    chat.client.arriving.put(edited)
    chat.client.arriving.put(MessageChanged(edited))
    assert [row.partition(": ")[2] for row in chat.rows[2:-1]] == ["x (edited)"]


def test_other_devices_and_conversations_are_told_in_their_place() -> None:
    chat = Chat()
    chat.client.arriving.put(MessageSent(message(ANN, "from my phone", 9, BOB)))
    chat.client.arriving.put(MessageSent(message(ANN, "to cat", 1, CAT)))
    chat.client.arriving.put(message(ANN, "to myself"))
    chat.client.arriving.put(MessageSent(message(ANN, "to myself")))
    chat.client.arriving.put(MessageChanged(message(CAT, "elsewhere", 8)))
    chat.client.arriving.put(ReadMoved(CAT, 3))
    assert chat.rows[2].endswith(" ann: from my phone")
    assert chat.rows[3:-1] == ["(you to cat: to cat)", "(ann: to myself)"]


def test_what_is_sent_here_is_shown_once() -> None:
    chat = Chat()
    chat.type("hi\r")
    rows = chat.rows
    chat.client.arriving.put(MessageSent(message(ANN, "hi", 1, BOB)))
    assert chat.rows == rows


def test_services_without_changes_are_followed_as_before() -> None:
    chat = Chat(changes=False)
    assert chat.client.changes is False
    chat.client.arriving.put(message(BOB, "hello"))
    assert chat.rows[2].endswith(" bob: hello")
