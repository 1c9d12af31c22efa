"""`chatd chat`: a conversation in the terminal."""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import sys
import termios
import tty
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.internet.protocol import Protocol, connectionDone
from twisted.internet.stdio import StandardIO
from twisted.python.failure import Failure

from chatd.cli.chat_session import ChatSession
from chatd.cli.errors import CommandError
from chatd.cli.messages import find_user
from chatd.cli.prompt import Size
from chatd.cli.session import Session
from chatd.cli.style import style_for
from chatd.client import ChatClient, NotSupported

HISTORY: Final = 20
"""Earlier messages shown at the start."""
_DEFAULT_SIZE: Final = (80, 24)
_BRACKETED_PASTE_ON, _BRACKETED_PASTE_OFF = "\x1b[?2004h", "\x1b[?2004l"


async def chat(args: argparse.Namespace, session: Session) -> None:
    """Show earlier messages, then send and receive; raises `KeyboardInterrupt` on Ctrl-C."""
    client, login = session.logged_in()
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise CommandError("chat needs a terminal; use chatd send and chatd tail in scripts")
    peer = await find_user(client, args.user)
    # Get the cursor before reading the history: what arrives in between is then in both, and
    # shown once.
    cursor, changes = await _cursor(client)
    history = await client.conversation(peer.id, limit=HISTORY)
    terminal = Terminal()
    conversation = ChatSession(
        client,
        login,
        peer,
        write=terminal.write,
        size=terminal_size,
        style=style_for(sys.stdout, os.environ),
        clock=session.reactor,
    )
    with raw_mode(sys.stdin.fileno()):
        async with terminal.opened(conversation):
            with calling_on_resize(session.reactor, conversation.editor.resize):
                await conversation.run(cursor, history, changes=changes)
    if conversation.interrupted:
        raise KeyboardInterrupt


async def _cursor(client: ChatClient) -> tuple[str, bool]:
    """The end of the inbox, and whether the service tells changes after it."""
    try:
        return (await client.poll("now", 0, changes=True)).cursor, True
    except NotSupported:
        return await client.cursor(), False


@contextlib.contextmanager
def raw_mode(descriptor: int) -> Iterator[None]:
    """Switch the terminal to raw mode, and back on exit."""
    before = termios.tcgetattr(descriptor)
    try:
        tty.setraw(descriptor, termios.TCSADRAIN)
        yield
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)


@contextlib.contextmanager
def calling_on_resize(reactor: Any, resize: Callable[[], object]) -> Iterator[None]:
    """Call `resize` in the reactor whenever the size of the terminal changes."""
    # A signal handler may run amid other code that is drawing.
    previous = signal.signal(signal.SIGWINCH, lambda *_: reactor.callFromThread(resize))
    try:
        yield
    finally:
        signal.signal(signal.SIGWINCH, previous)


def terminal_size() -> Size:
    """Columns and rows of the terminal; unlike that of `shutil`, it ignores COLUMNS and LINES."""
    try:
        columns, rows = os.get_terminal_size(sys.stdout.fileno())
    except OSError:
        return _DEFAULT_SIZE
    return columns or _DEFAULT_SIZE[0], rows or _DEFAULT_SIZE[1]


class Keyboard(Protocol):
    """Passes standard input to the line editor; `closed` fires when the terminal is closed."""

    def __init__(self, conversation: ChatSession) -> None:
        self._conversation = conversation
        self.closed: Deferred[None] = Deferred()

    def dataReceived(self, data: bytes) -> None:
        self._conversation.editor.feed(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._conversation.end()
        self.closed.callback(None)


class Terminal:
    """Standard input and output, which the reactor reads and writes."""

    @contextlib.asynccontextmanager
    async def opened(self, conversation: ChatSession) -> AsyncIterator[None]:
        """Pass keys and pastes to the conversation; in the end, all output has been written."""
        keyboard = Keyboard(conversation)
        # StandardIO makes the terminal non-blocking, so all output has to go through it.
        self._stdio = StandardIO(keyboard)
        self.write(_BRACKETED_PASTE_ON)
        try:
            yield
        finally:
            self.write(_BRACKETED_PASTE_OFF)
            self._stdio.loseConnection()
            await keyboard.closed

    def write(self, text: str) -> None:
        self._stdio.write(text.encode("utf-8", "replace"))
