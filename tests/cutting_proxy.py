"""A TCP proxy in this process that aborts connections, at any byte."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from twisted.internet.endpoints import TCP4ClientEndpoint, TCP4ServerEndpoint
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.task import deferLater
from twisted.python.failure import Failure


class CuttingProxy(Factory[Any]):
    """Forwards bytes between clients and a port, and aborts connections after a number of bytes."""

    noisy = False
    url: str

    def __init__(self, reactor: Any, port: int, dice: random.Random) -> None:
        self.reactor = reactor
        self.target = TCP4ClientEndpoint(reactor, "127.0.0.1", port)
        self.dice = dice
        self.open: list[Inward] = []
        self.cuts = 0
        self.bytes_until_cut: int | None = None

    def buildProtocol(self, address: object) -> Inward:
        inward = Inward(self)
        inward.factory = self
        return inward

    def passing(self, size: int) -> int:
        """How many of `size` bytes are forwarded; if fewer, the connection is then aborted."""
        if self.bytes_until_cut is None:
            return size
        self.bytes_until_cut -= size
        if self.bytes_until_cut > 0:
            return size
        passed = max(0, size + self.bytes_until_cut)
        self.bytes_until_cut = self.dice.randrange(100, 4000)
        return passed

    def cut(self) -> None:
        """Abort all connections."""
        for inward in tuple(self.open):
            inward.cut()


class Inward(Protocol):
    """The connection from a client."""

    def __init__(self, proxy: CuttingProxy) -> None:
        self.proxy = proxy
        self.outward: Outward | None = None
        self.waiting = b""

    def connectionMade(self) -> None:
        self.proxy.open.append(self)
        connecting = self.proxy.target.connect(Factory.forProtocol(lambda: Outward(self)))
        _ = connecting.addErrback(lambda _: self.abort())

    def dataReceived(self, data: bytes) -> None:
        passed = self.proxy.passing(len(data))
        if self.outward is None:
            self.waiting += data[:passed]
        else:
            self.outward.send(data[:passed])
        if passed < len(data):
            self.cut()

    def cut(self) -> None:
        self.proxy.cuts += 1
        self.abort()

    def cut_after_writing(self) -> None:
        """Cut the connection when what was forwarded has been written."""
        self.proxy.cuts += 1
        assert self.transport is not None
        self.transport.loseConnection()

    def abort(self) -> None:
        for side in (self, self.outward):
            transport: Any = None if side is None else side.transport
            if transport is not None:
                transport.abortConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self in self.proxy.open:
            self.proxy.open.remove(self)
        self.abort()


class Outward(Protocol):
    """The connection to the daemon on behalf of a client."""

    def __init__(self, inward: Inward) -> None:
        self.inward = inward

    def connectionMade(self) -> None:
        self.inward.outward = self
        self.send(self.inward.waiting)

    def send(self, data: bytes) -> None:
        assert self.transport is not None
        self.transport.write(data)

    def dataReceived(self, data: bytes) -> None:
        passed = self.inward.proxy.passing(len(data))
        assert self.inward.transport is not None
        self.inward.transport.write(data[:passed])
        if passed < len(data):
            receiving: Any = self.transport
            receiving.pauseProducing()
            self.inward.cut_after_writing()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.inward.abort()


@asynccontextmanager
async def proxied(reactor: Any, port: int, dice: random.Random) -> AsyncIterator[CuttingProxy]:
    """A proxy in front of a port of this machine."""
    proxy = CuttingProxy(reactor, port, dice)
    listening: Any = await TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1").listen(proxy)
    proxy.url = f"http://127.0.0.1:{listening.getHost().port}"
    try:
        yield proxy
    finally:
        await listening.stopListening()
        proxy.cut()
        while proxy.open:
            await deferLater(reactor, 0.01)
