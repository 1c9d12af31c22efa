"""Connections in memory, whose bytes arrive when the simulation says so, or never."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from typing import Any, Final

from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.error import ConnectionDone, ConnectionLost, ConnectionRefusedError
from twisted.internet.interfaces import (
    IHalfCloseableProtocol,
    IListeningPort,
    IStreamClientEndpoint,
    IStreamServerEndpoint,
    ITCPTransport,
)
from twisted.python.failure import Failure
from zope.interface import implementer

SERVER: Final = IPv4Address("TCP", "127.0.0.1", 8080)


@implementer(ITCPTransport)
class End:
    """One side of a connection: the transport of its protocol."""

    def __init__(self, link: Link, name: str, host: Any, peer: Any) -> None:
        self.link = link
        self.name = name
        self.protocol: Any = None
        self.other: End
        self.unsent = bytearray()
        self.connected = True
        self.disconnecting = False
        self.lost: Exception | None = None
        """Why the protocol is to be told that the connection is lost, until it has been."""
        self.reading = True
        self._closing_write = False
        self.closed_write = False
        self._producer: Any = None
        self._paused = False
        self._host = host
        self._peer = peer

    # What the simulation does.

    @property
    def can_send(self) -> bool:
        """Whether bytes, or the end of them, can arrive at the other side."""
        if self.link.broken or not self.other.connected or self.closed_write:
            return False
        return (bool(self.unsent) or self._closing_write) and self.other.reading

    def send(self, count: int) -> None:
        """Have up to `count` bytes arrive at the other side, and the end after the last."""
        data = bytes(self.unsent[:count])
        del self.unsent[:count]
        if data:
            self.link.network.note(data)
            self.other.protocol.dataReceived(data)
        if not self.unsent:
            if self._paused:
                self._paused = False
                if self._producer is not None:
                    self._producer.resumeProducing()
            if self._closing_write and not self.closed_write:
                self.closed_write = True
                self._finish_write()

    def _finish_write(self) -> None:
        other = self.other
        if self.disconnecting:
            self._lose(ConnectionDone())
        if other.connected:
            if IHalfCloseableProtocol.providedBy(other.protocol) and not self.disconnecting:
                other.protocol.readConnectionLost()
            else:
                other.lost = other.lost or ConnectionDone()

    def tell_lost(self) -> None:
        """Tell the protocol that the connection is lost."""
        if self.lost is not None:
            self._lose(self.lost)

    def _lose(self, reason: Exception) -> None:
        if self.connected:
            self.connected = False
            self.lost = None
            self.unsent.clear()
            producer, self._producer = self._producer, None
            if producer is not None:
                producer.stopProducing()
            self.protocol.connectionLost(Failure(reason))
            if self.other.connected and self.other.lost is None and not self.link.broken:
                self.other.lost = ConnectionLost()

    # The transport of the protocol.

    def write(self, data: bytes) -> None:
        if self.connected and not self._closing_write:
            self.unsent += data
            window = self.link.network.window
            if len(self.unsent) > window and self._producer is not None and not self._paused:
                self._paused = True
                self._producer.pauseProducing()

    def writeSequence(self, pieces: Any) -> None:
        self.write(b"".join(pieces))

    def loseConnection(self) -> None:
        if self.connected:
            self.disconnecting = self._closing_write = True
            if self.closed_write:
                self._finish_write()

    def loseWriteConnection(self) -> None:
        self._closing_write = True

    def abortConnection(self) -> None:
        # As Twisted does: nothing is read any more, and in the next turn the protocol is told.
        if self.connected:
            self.disconnecting = True
            self.reading = False
            self.unsent.clear()
            self.lost = self.lost or ConnectionLost()
            self.link.network.aborted.append(self)

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        assert streaming
        self._producer = producer

    def unregisterProducer(self) -> None:
        self._producer = None

    def pauseProducing(self) -> None:
        self.reading = False

    def resumeProducing(self) -> None:
        self.reading = True

    def stopProducing(self) -> None:
        self.loseConnection()

    def getHost(self) -> Any:
        return self._host

    def getPeer(self) -> Any:
        return self._peer

    def getTcpNoDelay(self) -> bool:
        return True

    def setTcpNoDelay(self, enabled: bool) -> None:
        pass

    def getTcpKeepAlive(self) -> bool:
        return True

    def setTcpKeepAlive(self, enabled: bool) -> None:
        pass


class Link:
    """A connection. Once it is `broken` nothing arrives any more, and nobody knows."""

    def __init__(
        self, network: Network, number: int, name: str, client: Any, server: Any, address: Any
    ) -> None:
        self.network = network
        self.server_name = name
        self.number = number
        self.broken = False
        self.client = End(self, "client", address, SERVER)
        self.server = End(self, "server", SERVER, address)
        self.client.other, self.server.other = self.server, self.client
        self.client.protocol, self.server.protocol = client, server

    @property
    def ends(self) -> tuple[End, End]:
        """Both sides."""
        return self.client, self.server

    @property
    def is_open(self) -> bool:
        """Whether one side has not been told that it is lost."""
        return self.client.connected or self.server.connected

    def reset(self, ends: tuple[End, ...]) -> None:
        """Nothing arrives any more; these ends will be told so."""
        self.broken = True
        for end in ends:
            if end.connected:
                end.lost = end.lost or ConnectionLost()


class Network:
    """Connects clients with servers that listen, like a balancer of load.

    `window` is how many unsent bytes of one side pause its producer; `choose` chooses a server.
    """

    def __init__(self, window: int, choose: Callable[[Sequence[str]], str]) -> None:
        self.window = window
        self.digest = 0
        """Of everything that has arrived."""
        self.links: list[Link] = []
        self.listening: dict[str, Any] = {}
        """By the names of servers that listen, the factories of their connections."""
        self._choose = choose
        self._numbers = iter(range(10**9))
        self.aborted: list[End] = []

    def note(self, data: bytes) -> None:
        """These bytes have arrived."""
        self.digest = zlib.crc32(data, self.digest)

    def connect(self, factory: Any) -> Deferred[Any]:
        """Open a connection; refused if nobody listens."""
        if not self.listening:
            return fail(ConnectionRefusedError())
        names = list(self.listening)
        name = names[0] if len(names) == 1 else self._choose(names)
        number = next(self._numbers)
        address = IPv4Address("TCP", "127.0.0.1", 10_000 + number % 50_000)
        client = factory.buildProtocol(SERVER)
        server = self.listening[name].buildProtocol(address)
        link = Link(self, number, name, client, server, address)
        self.links.append(link)
        server.makeConnection(link.server)
        client.makeConnection(link.client)
        return succeed(client)

    def server_gone(self, name: str) -> None:
        """A server was killed: its clients notice that the connections are lost."""
        for link in self.links:
            if link.server_name == name:
                link.reset((link.client,))
                link.server.connected = False
                link.server.lost = None

    def next_turn(self) -> None:
        """Tell who has aborted a connection; forget those that both sides know to be closed."""
        while self.aborted:
            self.aborted.pop(0).tell_lost()
        self.links = [link for link in self.links if link.is_open]

    def endpointForURI(self, uri: Any) -> ClientEndpoint:
        """`IAgentEndpointFactory`: whatever the URI, the simulated server."""
        return ClientEndpoint(self)


@implementer(IStreamClientEndpoint)
class ClientEndpoint:
    """Connects through a `Network`."""

    def __init__(self, network: Network) -> None:
        self._network = network

    def connect(self, factory: Any) -> Deferred[Any]:
        return self._network.connect(factory)


@implementer(IListeningPort)
class Port:
    """The port that a `Network` listens on."""

    def __init__(self, close: Callable[[], None]) -> None:
        self._close = close

    def startListening(self) -> None:
        pass

    def stopListening(self) -> None:
        self._close()

    def getHost(self) -> Any:
        return SERVER


@implementer(IStreamServerEndpoint)
class ServerEndpoint:
    """Listens in a `Network`."""

    def __init__(self, network: Network, name: str) -> None:
        self._network = network
        self._name = name

    def listen(self, factory: Any) -> Deferred[Any]:
        listening, name = self._network.listening, self._name
        listening[name] = factory

        def close() -> None:
            if listening.get(name) is factory:
                del listening[name]

        return succeed(Port(close))
