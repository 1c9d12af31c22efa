"""A conversation in a terminal: what is shown, and what entered lines do."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Final

from twisted.internet.defer import CancelledError, Deferred, DeferredQueue
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from chatd.cli.changes import describe_revision
from chatd.cli.graphemes import clip
from chatd.cli.line_editor import LineEditor
from chatd.cli.printing import UsernameCache, escape_controls, format_message
from chatd.cli.prompt import Size
from chatd.cli.receipts import OwnMessages, ReadMarker
from chatd.cli.session import SavedLogin
from chatd.cli.style import Style
from chatd.cli.transcript import Transcript
from chatd.client import (
    APIError,
    ChatClient,
    ChatError,
    Conversation,
    Message,
    MessageChanged,
    MessageSent,
    PeerMoved,
    Unreachable,
    User,
)

HELP: Final = """\
/help      show this
/quit      leave, as Ctrl-D does
//text     send "/text"
Up, Down   earlier lines
Alt-Enter  a line break
Ctrl-C     clear the draft, or leave
(read)     your last message was read"""

SLOW_SECONDS: Final = 1.0
"""How long the end may wait for messages to be sent before it says so."""


class ChatSession:
    """A conversation with one user; messages of others appear as notes of one line.

    The prompt says whether the last message was delivered or read. A message that is edited or
    deleted is replaced while it is in view, else a note tells it. What is shown is marked as read.

    `write` writes to the terminal, `size` returns its columns and rows.
    """

    def __init__(
        self,
        client: ChatClient,
        login: SavedLogin,
        peer: User,
        *,
        write: Callable[[str], object],
        size: Callable[[], Size],
        style: Style,
        clock: IReactorTime,
    ) -> None:
        self._client = client
        self._login = login
        self._peer = peer
        self._size = size
        self._style = style
        self._clock = clock
        self._names = UsernameCache(client)
        self._transcript = Transcript(style, login.user_id)
        self._ended: Deferred[None] = Deferred()
        self._outbox: DeferredQueue[str | None] = DeferredQueue()
        self._sending: Deferred[None] | None = None
        self._shown: dict[tuple[int, int], Message] = {}
        self._own_messages = OwnMessages()
        self._read_marker = ReadMarker(client, peer.id)
        self._prompt = f"{escape_controls(login.username)}> "
        self.interrupted = False
        """Whether the user left with Ctrl-C."""
        self.editor = LineEditor(
            self._prompt,
            write=write,
            size=size,
            on_line=self._on_line,
            on_interrupt=self._on_interrupt,
            on_end=self.end,
        )

    async def run(self, cursor: str, history: Conversation, *, changes: bool) -> None:
        """Chat until the user leaves, or until an error that retrying does not solve.

        What was entered before is sent first; another Ctrl-C gives up on it. Without `changes`, the
        service tells only what arrives.
        """
        name = escape_controls(self._peer.username)
        self._note(f"Chatting with {name}. Enter sends, Ctrl-D quits, /help shows more.")
        for message in history.messages[::-1]:
            self._show(message)
        self._own_messages.moved(history.peer_delivered, history.peer_read)
        self._draw_state()
        follow = self._follow_changes(cursor) if changes else self._follow(cursor)
        following = Deferred.fromCoroutine(follow)
        self._sending = sending = Deferred.fromCoroutine(self._send())
        for work in (following, sending):
            work.addErrback(self._on_failure)
        try:
            try:
                await self._ended
            finally:
                following.cancel()
            await self._finish(sending)
        finally:
            sending.cancel()
            self._read_marker.stop()
            self.editor.close()

    async def _finish(self, sending: Deferred[None]) -> None:
        """Send what is in the outbox."""
        self._outbox.put(None)
        slow = self._clock.callLater(SLOW_SECONDS, self._note, "(still sending, Ctrl-C gives up)")
        try:
            await sending
        finally:
            if slow.active():
                slow.cancel()

    def end(self) -> None:
        """End the conversation."""
        if not self._ended.called:
            self._ended.callback(None)

    def _on_interrupt(self) -> None:
        self.interrupted = True
        if self._ended.called and self._sending is not None:
            self._sending.cancel()
        self.end()

    def _on_failure(self, failure: Failure) -> None:
        if failure.check(CancelledError):
            return
        if self._ended.called:
            failure.raiseException()
        self._ended.errback(failure)

    async def _follow(self, cursor: str) -> None:
        async for message in self._client.follow(
            cursor, on_connection_change=self._report_connection
        ):
            await self._on_message(message)

    async def _follow_changes(self, cursor: str) -> None:
        async for item in self._client.follow(
            cursor, changes=True, on_connection_change=self._report_connection
        ):
            if isinstance(item, Message):
                await self._on_message(item)
            elif isinstance(item, MessageSent):
                await self._on_sent(item.message)
            elif isinstance(item, MessageChanged):
                self._on_changed(item.message)
            elif isinstance(item, PeerMoved) and item.user_id == self._peer.id:
                self._own_messages.moved(item.delivered, item.read)
                self._draw_state()

    async def _on_message(self, message: Message) -> None:
        if message.sent_by == self._peer.id:
            self._show(message)
        else:
            await self._show_note(message, message.sent_by)

    async def _on_sent(self, message: Message) -> None:
        """A message that was sent by this or another device of the account."""
        if message.received_by == self._peer.id:
            self._show(message)
        elif message.received_by != self._login.user_id:
            await self._show_note(message, message.received_by, "you to ")

    def _on_changed(self, message: Message) -> None:
        key = (message.received_by, message.seq)
        if {message.sent_by, message.received_by} != {self._login.user_id, self._peer.id}:
            return
        if self._shown.get(key) == message:
            return
        was_shown = key in self._shown
        self._shown[key] = message
        own = message.sent_by == self._login.user_id
        if was_shown and self.editor.replace(key, self._format(message)):
            return
        name = "you" if own else self._peer.username
        self._note(describe_revision(message, name, datetime.now().astimezone()))

    async def _send(self) -> None:
        while (text := await self._outbox.get()) is not None:
            while True:
                try:
                    sent = await self._client.send(self._peer.id, text)
                except (CancelledError, Unreachable):
                    if self._ended.called:
                        # The service may have received it, and only its response is missing.
                        self._error(f"perhaps not sent: {text}")
                        for unsent in filter(None, self._outbox.pending):
                            self._error(f"not sent: {unsent}")
                        raise
                    # `_follow` reports the lost connection.
                    continue
                except APIError as error:
                    self._error(f"not sent: {error.detail}")
                else:
                    self._show(sent.message)
                break

    def _on_line(self, text: str) -> None:
        text = text.rstrip("\n")
        command = text.split(maxsplit=1)[0].lower() if text.startswith("/") else ""
        if text.startswith("//"):
            self._post(text[1:])
        elif command == "/help":
            self._note(HELP)
        elif command == "/quit":
            self.end()
        elif command:
            self._error(f"no such command: {command} (try /help)")
        elif text.strip():
            self._post(text)

    def _post(self, text: str) -> None:
        if self._ended.called:
            self._error(f"not sent: {text}")
        else:
            self._outbox.put(text)

    def _show(self, message: Message) -> None:
        key = (message.received_by, message.seq)
        if key in self._shown:
            return
        self._shown[key] = message
        day = self._transcript.new_day(message)
        if day is not None:
            self.editor.print_above(day)
        self.editor.print_above(self._format(message), key)
        if message.received_by == self._login.user_id:
            self._read_marker.mark(message.seq)
        else:
            self._own_messages.sent(message.seq)
            self._draw_state()

    def _format(self, message: Message) -> str:
        own = message.sent_by == self._login.user_id
        name = self._login.username if own else self._peer.username
        return format_message(message, name, self._style, own=own)

    def _draw_state(self) -> None:
        state = self._own_messages.state
        prompt = escape_controls(self._login.username) + (f" ({state})> " if state else "> ")
        if prompt != self._prompt:
            self._prompt = prompt
            self.editor.set_prompt(prompt)

    async def _show_note(self, message: Message, user_id: int, prefix: str = "") -> None:
        """Show the beginning of a message that belongs to another conversation."""
        try:
            name = prefix + await self._names.get(user_id)
        except ChatError:
            # Of use without the name, too.
            name = f"{prefix}user {user_id}"
        words = " ".join(message.text.split())
        columns, _ = self._size()
        # Within the parentheses, and not in the last column.
        self._note(f"({clip(escape_controls(f'{name}: {words}'), max(1, columns - 3))})")

    def _report_connection(self, error: ChatError | None) -> None:
        if error is None:
            self._note("(connected again)")
        else:
            self._error("(offline, trying again)")

    def _note(self, text: str) -> None:
        self.editor.print_above(self._styled(self._style.note, text))

    def _error(self, text: str) -> None:
        self.editor.print_above(self._styled(self._style.error, escape_controls(text)))

    @staticmethod
    def _styled(style: Callable[[str], str], text: str) -> str:
        return "\n".join(map(style, text.split("\n")))
