"""`chatd chat`: a conversation in the terminal, typing while messages come in."""

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

from chatd.cli.errors import Trouble
from chatd.cli.line_editor import LineEditor
from chatd.cli.messages import find
from chatd.cli.printing import line, plain
from chatd.cli.session import LogIn, Session
from chatd.client import APIError, ChatClient, ChatError, Message, Unreachable, User

HISTORY: Final = 20
"""Messages shown of what was said before."""


async def chat(args: argparse.Namespace, session: Session) -> None:
    """Show what was said, then everything as it comes, until Ctrl-D."""
    client, me = session.logged_in()
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise Trouble("chat needs a terminal; scripts have chatd send and chatd tail")
    peer = await find(client, args.user)
    # The place is fixed before the history is read: what comes meanwhile is not missed, and
    # what is in both is shown once.
    cursor = await client.cursor()
    said = await client.conversation(peer.id, limit=HISTORY)
    with unbuffered(sys.stdin.fileno()):
        await Talk(client, me, peer).run(cursor, said.messages[::-1])


@contextlib.contextmanager
def unbuffered(descriptor: int) -> Iterator[None]:
    """Give every key at once and echo none; put the terminal back afterwards, whatever happens."""
    before = termios.tcgetattr(descriptor)
    try:
        tty.setraw(descriptor, termios.TCSADRAIN)
        yield
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)


class Keyboard(Protocol):
    """Standard input as it is typed."""

    def __init__(self, talk: Talk) -> None:
        self._talk = talk

    def dataReceived(self, data: bytes) -> None:
        self._talk.editor.keys(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._talk.end()


class Talk:
    """One conversation on the screen."""

    def __init__(self, client: ChatClient, me: LogIn, peer: User) -> None:
        self._client = client
        self._me = me
        self._peer = peer
        self._ended: Deferred[None] = Deferred()
        self._typed: DeferredQueue[str | None] = DeferredQueue()
        self._shown: set[tuple[int, int]] = set()
        self.editor = LineEditor(
            f"{plain(me.username)}> ",
            write=self._write,
            entered=self._entered,
            ended=self.end,
            width=lambda: shutil.get_terminal_size().columns,
        )

    async def run(self, cursor: str, said: tuple[Message, ...]) -> None:
        """Talk until Ctrl-D, or until the service refuses for good."""
        # Makes the terminal non-blocking, so that all output has to go this way, too.
        self._terminal = StandardIO(Keyboard(self))
        name = plain(self._peer.username)
        self._write(f"Talking with {name}. Return sends, Ctrl-D ends.\r\n")
        for message in said:
            self._show(message)
        self.editor.show()
        following = Deferred.fromCoroutine(self._follow(cursor))
        sending = Deferred.fromCoroutine(self._send())
        for work in (following, sending):
            work.addErrback(self._failed)
        previous = signal.signal(signal.SIGWINCH, lambda *_: self.editor.show())
        try:
            await self._ended
        finally:
            signal.signal(signal.SIGWINCH, previous)
            following.cancel()
            self._typed.put(None)
        # What was typed is sent before this ends.
        await sending
        self.editor.hide()
        self._terminal.loseConnection()

    def end(self) -> None:
        """Stop talking."""
        if not self._ended.called:
            self._ended.callback(None)

    def _failed(self, failure: Failure) -> None:
        if failure.check(CancelledError):
            return
        if self._ended.called:
            failure.raiseException()
        self._ended.errback(failure)

    async def _follow(self, cursor: str) -> None:
        async for message in self._client.follow(cursor, on_trouble=self._trouble):
            if message.sent_by == self._peer.id:
                self._show(message)

    async def _send(self) -> None:
        while (text := await self._typed.get()) is not None:
            while True:
                try:
                    sent = await self._client.send(self._peer.id, text)
                except Unreachable:
                    if self._ended.called:
                        raise
                    # The follower says that the service is away.
                    continue
                except APIError as refused:
                    self.editor.above(f"not sent: {refused.detail}")
                else:
                    self._show(sent.message)
                break

    def _entered(self, text: str) -> None:
        if text.strip():
            self._typed.put(text)

    def _show(self, message: Message) -> None:
        place = (message.received_by, message.seq)
        if place not in self._shown:
            self._shown.add(place)
            mine = message.sent_by == self._me.user_id
            self.editor.above(line(message, self._me.username if mine else self._peer.username))

    def _trouble(self, problem: ChatError | None) -> None:
        self.editor.above("(connected again)" if problem is None else "(offline, trying again)")

    def _write(self, text: str) -> None:
        self._terminal.write(text.encode("utf-8", "replace"))
