"""`LineReader`: lines of a body, with a bounded buffer."""

from collections.abc import Iterator
from typing import Any

import pytest
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.web.client import ResponseDone, ResponseFailed

from chatd.client import Unreachable
from chatd.client import lines as lines_module
from chatd.client.lines import BUFFER_BYTES, LineReader
from tests.client.scripted import failure, success


class TestLineReader:
    @pytest.fixture(autouse=True)
    def connect(self) -> Iterator[None]:
        self.clock = Clock()
        self.reader = LineReader(self.clock, 40.0)
        self.transport: Any = StringTransport()
        connect: Any = self.reader.makeConnection
        connect(self.transport)
        yield
        self.reader.close()
        assert self.clock.getDelayedCalls() == []

    def read(self) -> Deferred[bytes]:
        return Deferred.fromCoroutine(self.reader.read())

    def lose(self, error: Exception) -> None:
        self.reader.connectionLost(Failure(error))

    def test_lines_come_whole_however_they_are_received(self) -> None:
        reading = self.read()
        for byte in b"one\n\nth":
            self.reader.dataReceived(bytes([byte]))
        assert success(reading) == b"one"
        assert success(self.read()) == b""
        reading = self.read()
        assert self.reader.is_waiting
        self.reader.dataReceived(b"ree\nfour\n")
        assert success(reading) == b"three"
        assert success(self.read()) == b"four"

    def test_what_was_received_is_read_before_the_end(self) -> None:
        self.reader.dataReceived(b"one\ntwo\nincompl")
        self.lose(ResponseDone())
        assert [success(self.read()) for _ in range(2)] == [b"one", b"two"]
        assert str(failure(self.read(), Unreachable)) == "the stream ended"
        assert success(self.reader.disconnected) is None

    def test_a_lost_connection_says_why(self) -> None:
        reading = self.read()
        self.lose(ResponseFailed([Failure(ConnectionLost("cable cut"))]))
        assert "cable cut" in str(failure(reading, Unreachable))

    def test_receiving_pauses_while_much_is_unread(self) -> None:
        data = b"x" * 1000 + b"\n"
        received = 0
        while self.transport.producerState == "producing":
            self.reader.dataReceived(data)
            received += 1
        assert BUFFER_BYTES <= received * len(data) < BUFFER_BYTES + len(data)
        for _ in range(received):
            assert self.transport.producerState == "paused"
            assert success(self.read()) == b"x" * 1000
        assert self.transport.producerState == "producing"

    def test_receiving_does_not_pause_within_a_line(self) -> None:
        reading = self.read()
        for _ in range(3):
            self.reader.dataReceived(b"x" * BUFFER_BYTES)
        assert self.transport.producerState == "producing"
        self.reader.dataReceived(b"\n")
        assert len(success(reading)) == 3 * BUFFER_BYTES
        assert self.transport.producerState == "producing"

    def test_a_line_without_an_end_is_given_up(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(lines_module, "MAX_RESPONSE_BYTES", 100)
        reading = self.read()
        self.reader.dataReceived(b"x" * 101)
        assert "too long" in str(failure(reading, Unreachable))
        assert self.transport.disconnecting

    def test_silence_ends_it(self) -> None:
        reading = self.read()
        for _ in range(9):
            self.clock.advance(39)
            self.reader.dataReceived(b"\n")
            success(reading)
            reading = self.read()
        self.clock.advance(39)
        # Part of a line is not silence.
        self.reader.dataReceived(b"part")
        self.clock.advance(39)
        assert not reading.called
        self.clock.advance(1)
        assert "nothing was received in 40 s" in str(failure(reading, Unreachable))
        assert self.transport.disconnecting
        assert not self.reader.exhausted

    def test_it_is_closed_when_nobody_reads(self) -> None:
        self.reader.dataReceived(b"one\ntwo\n")
        self.clock.advance(39)
        success(self.read())
        self.clock.advance(39)
        self.reader.dataReceived(b"three\n")
        assert not self.transport.disconnecting
        self.clock.advance(1)
        assert self.transport.disconnecting
        # What came after that might have been received only in part.
        self.reader.dataReceived(b"four\n")
        assert not self.reader.exhausted
        assert [success(self.read()) for _ in range(2)] == [b"two", b"three"]
        assert self.reader.exhausted

    def test_closing_reads_on_until_the_connection_is_closed(self) -> None:
        self.reader.dataReceived(b"\n" * BUFFER_BYTES)
        assert self.transport.producerState == "paused"
        self.reader.close()
        assert self.transport.producerState == "producing"
        self.lose(ConnectionDone())
        assert success(self.reader.disconnected) is None

    def test_cancelling_closes_it(self) -> None:
        reading = self.read()
        reading.cancel()
        failure(reading, CancelledError)
        assert self.transport.disconnecting
        assert not self.reader.is_waiting
