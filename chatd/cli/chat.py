"""`chatd chat`: a conversation in the terminal."""

from __future__ import annotations

import argparse
import contextlib
import shutil
import signal
import sys
import termios
import tty
from collections.abc import Iterator
from typing import Final

from twisted.internet.defer import CancelledError, Deferred, DeferredQueue
from twisted.internet.protocol import Protocol, connectionDone
from twisted.internet.stdio import StandardIO
from twisted.python.failure import Failure

from chatd.cli.errors import CommandError
from chatd.cli.line_editor import LineEditor
from chatd.cli.messages import find_user
from chatd.cli.printing import escape_controls, format_message
from chatd.cli.session import SavedLogin, Session
from chatd.client import APIError, ChatClient, ChatError, Message, Unreachable, User

HISTORY: Final = 20
"""Earlier messages shown at the start."""


async def chat(args: argparse.Namespace, session: Session) -> None:
    """Show earlier messages, then send and receive until Ctrl-D."""
    client, login = session.logged_in()
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise CommandError("chat needs a terminal; use chatd send and chatd tail in scripts")
    peer = await find_user(client, args.user)
    # Get the cursor before reading the history: what arrives in between is then in both, and
    # shown once.
    cursor = await client.cursor()
    history = await client.conversation(peer.id, limit=HISTORY)
    with raw_mode(sys.stdin.fileno()):
        await ChatSession(client, login, peer).run(cursor, history.messages[::-1])


@contextlib.contextmanager
def raw_mode(descriptor: int) -> Iterator[None]:
    """Switch the terminal to raw mode, and back on exit."""
    before = termios.tcgetattr(descriptor)
    try:
        tty.setraw(descriptor, termios.TCSADRAIN)
        yield
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)


class Keyboard(Protocol):
    """Passes standard input to the line editor."""

    def __init__(self, chat: ChatSession) -> None:
        self._chat = chat

    def dataReceived(self, data: bytes) -> None:
        self._chat.editor.feed(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._chat.end()


class ChatSession:
    """A conversation with one user on the terminal."""

    def __init__(self, client: ChatClient, login: SavedLogin, peer: User) -> None:
        self._client = client
        self._login = login
        self._peer = peer
        self._ended: Deferred[None] = Deferred()
        self._outbox: DeferredQueue[str | None] = DeferredQueue()
        self._shown: set[tuple[int, int]] = set()
        self.editor = LineEditor(
            f"{escape_controls(login.username)}> ",
            write=self._write,
            on_line=self._on_line,
            on_exit=self.end,
            width=lambda: shutil.get_terminal_size().columns,
        )

    async def run(self, cursor: str, history: tuple[Message, ...]) -> None:
        """Chat until Ctrl-D, or until an error that retrying does not solve."""
        # StandardIO makes the terminal non-blocking, so all output has to go through it.
        self._terminal = StandardIO(Keyboard(self))
        name = escape_controls(self._peer.username)
        self._write(f"Chatting with {name}. Return sends, Ctrl-D quits.\r\n")
        for message in history:
            self._show(message)
        self.editor.show()
        following = Deferred.fromCoroutine(self._follow(cursor))
        sending = Deferred.fromCoroutine(self._send())
        for work in (following, sending):
            work.addErrback(self._on_failure)
        previous = signal.signal(signal.SIGWINCH, lambda *_: self.editor.show())
        try:
            await self._ended
        finally:
            signal.signal(signal.SIGWINCH, previous)
            following.cancel()
            self._outbox.put(None)
        # Send what is still in the outbox.
        await sending
        self.editor.hide()
        self._terminal.loseConnection()

    def end(self) -> None:
        """End the conversation."""
        if not self._ended.called:
            self._ended.callback(None)

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
            if message.sent_by == self._peer.id:
                self._show(message)

    async def _send(self) -> None:
        while (text := await self._outbox.get()) is not None:
            while True:
                try:
                    sent = await self._client.send(self._peer.id, text)
                except Unreachable:
                    if self._ended.called:
                        raise
                    # `_follow` reports the lost connection.
                    continue
                except APIError as error:
                    self.editor.print_above(f"not sent: {error.detail}")
                else:
                    self._show(sent.message)
                break

    def _on_line(self, text: str) -> None:
        if text.strip():
            self._outbox.put(text)

    def _show(self, message: Message) -> None:
        key = (message.received_by, message.seq)
        if key not in self._shown:
            self._shown.add(key)
            own = message.sent_by == self._login.user_id
            name = self._login.username if own else self._peer.username
            self.editor.print_above(format_message(message, name))

    def _report_connection(self, error: ChatError | None) -> None:
        self.editor.print_above("(connected again)" if error is None else "(offline, trying again)")

    def _write(self, text: str) -> None:
        self._terminal.write(text.encode("utf-8", "replace"))
