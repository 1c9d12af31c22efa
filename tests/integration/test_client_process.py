"""The client library against a real daemon, through a proxy that aborts connections."""

from __future__ import annotations

import random
import re
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP4ServerEndpoint
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread
from twisted.python.failure import Failure

from bench.processes import free_port
from chatd.client import ChatClient, Follow, FollowTransport, Message
from chatd.client.lines import BUFFER_BYTES
from tests.daemon import ROOT, Daemon, environment

SECONDS = 60.0


class Proxy(Factory[Any]):
    """Forwards bytes between clients and a port, and aborts connections after a number of bytes."""

    noisy = False

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

    def __init__(self, proxy: Proxy) -> None:
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
async def proxied(daemon: Daemon) -> AsyncIterator[tuple[Proxy, str]]:
    """A proxy in front of the daemon, and its URL."""
    from twisted.internet import reactor

    clock: Any = reactor
    proxy = Proxy(clock, daemon.port, random.Random(4))
    listening: Any = await TCP4ServerEndpoint(clock, 0, interface="127.0.0.1").listen(proxy)
    try:
        yield proxy, f"http://127.0.0.1:{listening.getHost().port}"
    finally:
        await listening.stopListening()
        proxy.cut()
        while proxy.open:
            await deferLater(clock, 0.01)


class Reader:
    """Follows an inbox and collects its messages."""

    def __init__(self, follow: Follow) -> None:
        self.seen: list[Message] = []
        self._follow = follow
        self._reading = Deferred.fromCoroutine(self._read())

    async def _read(self) -> None:
        async for message in self._follow:
            self.seen.append(message)

    async def until(self, count: int) -> None:
        """Wait until `count` messages have arrived."""
        from twisted.internet import reactor

        clock: Any = reactor
        ends = clock.seconds() + SECONDS
        while len(self.seen) < count and not self._reading.called:
            assert clock.seconds() < ends, f"{len(self.seen)} of {count} came"
            await deferLater(clock, 0.02)

    async def stop(self) -> None:
        self._reading.cancel()
        try:
            await self._reading
        except CancelledError:
            pass


def account(daemon: Daemon, name: str) -> tuple[int, str]:
    """Create an account; returns its id and a token."""
    return daemon.register(name), daemon.token(name)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path


@pytest.mark.parametrize("transport", ["poll", "stream"])
@ensureDeferred
async def test_every_message_arrives_once_despite_disconnects_and_restarts(
    folder: Path, transport: FollowTransport
) -> None:
    with Daemon(folder, "--drain-seconds", "1", port=free_port()) as daemon:
        async with proxied(daemon) as (proxy, url):
            await through_cuts(daemon, proxy, url, transport)


async def through_cuts(daemon: Daemon, proxy: Proxy, url: str, transport: FollowTransport) -> None:
    _, anns = await deferToThread(account, daemon, "ann")
    bob, bobs = await deferToThread(account, daemon, "bob")
    async with ChatClient(url, anns) as sender, ChatClient(url, bobs) as receiver:
        reader = Reader(receiver.follow("0", transport=transport))
        proxy.bytes_until_cut = 1500
        expected = []
        for number in range(60):
            expected.append(f"{number}")
            sent = await sender.send(bob, f"{number}")
            assert sent.message.seq == number + 1
            if number == 20:
                await deferToThread(daemon.stop)
                await deferToThread(daemon.start)
            elif number == 40:
                # Without an orderly shutdown.
                await deferToThread(daemon.kill)
                await deferToThread(daemon.start)
            elif number % 7 == 0:
                proxy.cut()
        await reader.until(60)
        await reader.stop()
        assert [message.text for message in reader.seen] == expected
        assert [message.seq for message in reader.seen] == list(range(1, 61))
        assert proxy.cuts > 20
        proxy.bytes_until_cut = None
        assert (await receiver.page()).count == 60


@ensureDeferred
async def test_a_send_does_not_wait_behind_streams_and_held_polls(folder: Path) -> None:
    with Daemon(folder) as daemon:
        ann, anns = await deferToThread(account, daemon, "ann")
        async with ChatClient(daemon.url, anns) as client:
            polls = [Reader(client.follow("0", transport="poll")) for _ in range(4)]
            streams = [Reader(client.follow("0", transport="stream")) for _ in range(4)]
            readers = polls + streams
            await client.send(ann, "hai")
            for reader in readers:
                await reader.until(1)
            for reader in readers:
                await reader.stop()


@ensureDeferred
async def test_a_stream_sends_no_faster_than_its_messages_are_taken(folder: Path) -> None:
    from twisted.internet import reactor

    clock: Any = reactor
    with Daemon(folder) as daemon:
        ann, anns = await deferToThread(account, daemon, "ann")
        async with ChatClient(daemon.url, anns) as client:
            # As JSON, each is six times as long.
            texts = [f"{number:02}" + "\x01" * 10_000 for number in range(40)]
            for text in texts:
                await client.send(ann, text)
            follow = client.follow("0", transport="stream")
            seen = [(await follow.__anext__()).text]
            lines: Any = follow._streaming._lines  # type: ignore[union-attr]
            ends = clock.seconds() + SECONDS
            while not lines._paused:
                assert clock.seconds() < ends
                await deferLater(clock, 0.01)
            while len(seen) < len(texts):
                # What one receive may bring, beyond the limit.
                assert len(lines._buffer) < BUFFER_BYTES + 2 * 65_536
                seen.append((await follow.__anext__()).text)
            assert seen == texts


def programs() -> list[str]:
    """The complete programs in the documentation of the client."""
    text = (ROOT / "docs" / "client.md").read_text("utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    return [block for block in blocks if "task.react" in block]


@ensureDeferred
async def test_the_programs_in_the_documentation_run(folder: Path) -> None:
    with Daemon(folder) as daemon:
        printed = ("hai", "hai", "nightly report", "A note to myself", "read by bob")
        for number, (program, expected) in enumerate(zip(programs(), printed, strict=True)):
            assert "http://127.0.0.1:8080" in program
            path = folder / f"program{number}.py"
            path.write_text(program.replace("http://127.0.0.1:8080", daemon.url))
            done = await deferToThread(
                subprocess.run,
                [sys.executable, "-W", "error", path.name],
                cwd=folder,
                env=environment(),
                capture_output=True,
                text=True,
                timeout=SECONDS,
            )
            assert done.returncode == 0, done.stdout + done.stderr
            assert expected in done.stdout
