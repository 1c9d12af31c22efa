"""`ChatSession`: a conversation on a screen in memory, with a scripted client."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from typing import cast

import pytest
from twisted.internet.defer import Deferred, DeferredQueue
from twisted.internet.task import Clock

from chatd.cli.chat_session import SLOW_SECONDS, ChatSession
from chatd.cli.session import SavedLogin
from chatd.cli.style import PLAIN, Style
from chatd.client import APIError, ChatClient, ChatError, Message, Sent, Unreachable, User
from tests.cli.screen import Screen
from tests.doubles import cancel, result_of

NOON = datetime(2026, 11, 27, 12, tzinfo=UTC)
ANN, BOB, CAT = 1, 2, 3
NAMES = {ANN: "ann", BOB: "bob", CAT: "cat"}
CTRL_C, CTRL_D, UP = "\x03", "\x04", "\x1b[A"


class ScriptedClient:
    """Delivers what the test puts into `arriving`; sends as `sending` says and records texts."""

    def __init__(self) -> None:
        self.arriving: DeferredQueue[Message | ChatError] = DeferredQueue()
        self.report: Callable[[ChatError | None], object] = print
        self.texts: list[str] = []
        self.sending: Callable[[], Deferred[None] | None] = lambda: None
        self.lookup: ChatError | None = None

    async def follow(
        self, since: str, *, on_connection_change: Callable[[ChatError | None], object]
    ) -> AsyncIterator[Message]:
        self.report = on_connection_change
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

    def __init__(self, style: Style = PLAIN, columns: int = 80) -> None:
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
        self.ended = Deferred.fromCoroutine(self.session.run("cursor", ()))

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
