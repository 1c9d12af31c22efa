"""A sink for streams that records what it is given."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from chatd.domain.message_stream import End, MessageStream
from chatd.model import ChangesPosition, Cursor, Message, Session
from chatd.model_sync import Change
from tests.doubles import System, result_of


class RecordingSink:
    """Takes up to `takes` messages at once, and pauses the stream when it has `room` for no more.

    It is also the record of the request.
    """

    held_seconds = -1.0

    def __init__(self, takes: int = 100, room: int = 1_000_000) -> None:
        self.takes = takes
        self.room = room
        self.stream: MessageStream | None = None
        self.messages: list[Message] = []
        self.changes: list[Change] = []
        self.position: ChangesPosition | None = None
        self.ended: End | Failure | None = None

    @property
    def seqs(self) -> list[int]:
        """The seqs of all messages so far."""
        return [message.seq for message in self.messages]

    def write_messages(self, messages: Sequence[Message]) -> int:
        assert self.ended is None
        assert self.room > 0
        taken = messages[: min(self.takes, self.room)]
        self.messages += taken
        self.room -= len(taken)
        if not self.room:
            assert self.stream is not None
            self.stream.pause()
        return len(taken)

    def write_changes(self, changes: Sequence[Change], positions: Sequence[ChangesPosition]) -> int:
        assert self.ended is None
        assert self.room > 0
        taken = min(self.takes, self.room, len(changes))
        self.changes += changes[:taken]
        self.position = positions[taken - 1]
        self.room -= taken
        if not self.room:
            assert self.stream is not None
            self.stream.pause()
        return taken

    def end(self, why: End) -> None:
        assert self.ended is None
        self.ended = why

    def fail(self, failure: Failure) -> None:
        assert self.ended is None
        self.ended = failure

    def attach(self, started: tuple[MessageStream, Any]) -> MessageStream:
        """Begin a stream that `Chats.stream` has returned."""
        self.stream, inbox = started
        self.stream.begin(self, inbox)
        return self.stream

    def start(
        self, system: System, session: Session, since: Cursor | None
    ) -> Deferred[MessageStream]:
        """Open a stream and attach this sink as soon as it is open."""
        started = Deferred.fromCoroutine(system.chats.stream(session, since, self))
        return started.addCallback(self.attach)

    def open(self, system: System, session: Session, since: Cursor | None) -> MessageStream:
        """A stream that is open."""
        started = self.start(system, session, since)
        system.settle()
        return result_of(started)
