"""A client that does not keep to HTTP, or does not wait for responses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from twisted.internet.error import ConnectionRefusedError
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure

from tests.history import Stored
from tests.simulation.clients import Client

ATTACKS: Final = 6
PIPELINED: Final = 20

_HEAD: Final = b"Host: 127.0.0.1:8080\r\n"
_BROKEN: Final = (
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    b"GET /api/v1/chats/ HTTP/1.1\r\nHost:",
    b"GET / HTTP/1.1\r\n" + _HEAD + b"X: " + b"x" * 100_000,
    b"POST /api/v1/chats/ HTTP/1.1\r\n" + _HEAD + b'Content-Length: 1000\r\n\r\n{"message',
    b"POST /api/v1/users/ HTTP/1.1\r\n" + _HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
    b"POST / HTTP/1.1\r\n" + _HEAD + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nxx",
    b"\r\n" * 1000,
)


class Hostile(Client):
    """Sends what is no request, and many requests at once, and leaves at any time."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._found: list[str] = []

    def problems(self, stored: Mapping[int, Sequence[Stored]]) -> list[str]:
        return [*super().problems(stored), *self._found]

    async def run(self) -> None:
        simulation, tape = self.simulation, self.simulation.tape
        for _ in range(ATTACKS):
            if self.finishing:
                return
            await simulation.pause()
            try:
                connection = await simulation.network.connect(Factory.forProtocol(_Connection))
            except ConnectionRefusedError:
                continue
            asked = 0
            if tape.one_in(2):
                asked = 1 + tape.below(PIPELINED)
                for number in range(asked):
                    connection.send(self._request(number % 3))
                simulation.reached["requests at once"] += 1
            else:
                connection.send(tape.choice(_BROKEN))
                simulation.reached["no request"] += 1
            if not self.finishing:
                await simulation.pause()
            if asked and connection.responses > asked:
                self._found.append(f"{connection.responses} responses to {asked} requests")
            if connection.is_open and tape.one_in(2):
                connection.abort()

    def _request(self, kind: int) -> bytes:
        path = (b"/api/v1/chats/", b"/api/v1/chats/?since=0&wait=5", b"/nowhere")[kind]
        token = self.token.encode()
        return b"GET %b HTTP/1.1\r\n%bAuthorization: Bearer %b\r\n\r\n" % (path, _HEAD, token)


class _Connection(Protocol):
    def __init__(self) -> None:
        self.is_open = True
        self._received = b""

    @property
    def responses(self) -> int:
        """How many there are so far."""
        return self._received.count(b"HTTP/1.1 ")

    def send(self, data: bytes) -> None:
        """Send bytes."""
        assert self.transport is not None
        self.transport.write(data)

    def abort(self) -> None:
        """Leave without a word."""
        transport: Any = self.transport
        transport.abortConnection()

    def dataReceived(self, data: bytes) -> None:
        self._received += data

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.is_open = False
