"""What is done to a server: deliver, latency, read, send and park; and what must come of it."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from bench.delivery_check import Tally
from bench.load_client import Connection, Loop, now
from bench.processes import ServerProcess, machine_busy_seconds
from bench.protocols import Dialect, Follower, Sender, Unexpected
from bench.results import Measured, percentiles, quantiles
from bench.servers import Server

CONNECTIONS = 32
SENDERS = 16
JOIN_SECONDS = 60.0
SETTLE_SECONDS = 0.5
DRAIN_SECONDS = 10.0
WAKES = 50


@dataclass(frozen=True)
class Span:
    """How long a workload runs before it counts, and while it counts, in seconds."""

    warm: float
    counted: float


class Usage:
    """What the server, the generator and the rest of the machine use between two moments."""

    def __init__(self, process: ServerProcess) -> None:
        self._process = process
        self._began = now()
        self._server = process.cpu_seconds
        self._own = _own_cpu()
        self._machine = machine_busy_seconds()

    def figures(self) -> dict[str, float]:
        """Shares of one core, in per cent."""
        seconds = now() - self._began
        server = self._process.cpu_seconds - self._server
        own = _own_cpu() - self._own
        others = machine_busy_seconds() - self._machine - server - own
        return {
            "cpu_server": 100 * server / seconds,
            "cpu_generator": 100 * own / seconds,
            "cpu_others": max(0.0, 100 * others / seconds),
        }


class Followers:
    """Followers of the first users, each with a poll held from `start` on until `stop`."""

    def __init__(self, loop: Loop, dialect: Dialect, count: int, tally: Tally) -> None:
        self._followers = [dialect.follower(loop, user) for user in range(count)]
        self._loop = loop
        self._tally = tally
        self._holding = 0
        self._stopped = False

    def start(self) -> None:
        """Join all, a few at a time, and give the server a moment to hold what was asked."""
        waiting = list(enumerate(self._followers))
        for _ in range(min(64, len(waiting))):
            self._join_next(waiting)
        wanted = len(self._followers)
        if not self._loop.run_until(now() + JOIN_SECONDS, lambda: self._holding == wanted):
            raise Unexpected(f"only {self._holding} of {wanted} followers could join")
        self._loop.run_until(now() + SETTLE_SECONDS)

    def _join_next(self, waiting: list[tuple[int, Follower]]) -> None:
        while waiting:
            number, follower = waiting.pop()
            request = follower.join()
            if request is not None:
                joined = partial(self._joined, waiting, number, follower)
                follower.connection.ask(request, joined)
                break
            self._hold(number, follower)

    def _joined(
        self,
        waiting: list[tuple[int, Follower]],
        number: int,
        follower: Follower,
        status: int,
        head: bytes,
        body: bytes,
    ) -> None:
        follower.receive(status, head, body)
        self._hold(number, follower)
        self._join_next(waiting)

    def _hold(self, number: int, follower: Follower) -> None:
        self._holding += 1
        ask, poll, receive, take = (
            follower.connection.ask,
            follower.poll,
            follower.receive,
            self._tally.receive,
        )

        def arrived(status: int, head: bytes, body: bytes) -> None:
            at = now()
            for received in receive(status, head, body):
                take(number, received, at)
            if not self._stopped:
                ask(poll(), arrived)

        ask(poll(), arrived)

    def stop(self) -> None:
        """Ask for nothing more."""
        self._stopped = True


class Senders:
    """Connections that send to followers, each one message at a time."""

    def __init__(
        self, loop: Loop, dialect: Dialect, count: int, recipients: int, tally: Tally
    ) -> None:
        self._free: list[Sender] = [dialect.sender(loop, number) for number in range(count)]
        self._recipients = recipients
        self._tally = tally
        self._random = random.Random(1)
        self._closed = False
        self._busy = 0
        self._late: list[float] = []
        self.acknowledged: list[tuple[float, float]] = []
        """When each send was meant to begin, and the seconds until it was acknowledged."""

    @property
    def idle(self) -> bool:
        """Whether no send is under way."""
        return not self._busy and not self._late

    def send(self, stamp: float) -> None:
        """Send one message, as soon as a connection is free."""
        if not self._free:
            self._late.append(stamp)
            return
        sender = self._free.pop()
        self._send(sender, stamp, partial(self._next, sender))

    def repeat(self) -> None:
        """Have every connection send one message after the other, until `stop`."""
        for sender in self._free:
            self._again(sender)

    def stop(self) -> None:
        """Begin nothing more."""
        self._closed = True

    def _again(self, sender: Sender) -> None:
        if not self._closed:
            self._send(sender, now(), partial(self._again, sender))

    def _next(self, sender: Sender) -> None:
        self._free.append(sender)
        if self._late:
            self.send(self._late.pop(0))

    def _send(self, sender: Sender, stamp: float, done: Callable[[], None]) -> None:
        recipient = int(self._random.random() * self._recipients)
        number, text = self._tally.send(recipient, stamp)
        connection = sender.connection
        self._busy += 1

        def answered(status: int, head: bytes, body: bytes) -> None:
            question = sender.acknowledge(status, head, body)
            if question is not None:
                connection.ask(question, answered)
                return
            self._busy -= 1
            self._tally.acknowledge(number)
            self.acknowledged.append((stamp, now() - stamp))
            done()

        connection.ask(sender.send(recipient, text), answered)


def deliver(server: Server, held: int, span: Span, rate: float | None = None) -> Measured:
    """`held` followers hold polls; senders send as fast as they can, or `rate` a second.

    A delivery takes from the moment its send was meant to begin until the follower has it.
    """
    loop, dialect = Loop(), server.speak()
    try:
        tally = Tally(held)
        followers = Followers(loop, dialect, held, tally)
        senders = Senders(loop, dialect, SENDERS, held, tally)
        followers.start()
        began = now()
        if rate is None:
            senders.repeat()
        else:
            _send_at(loop, senders, rate, began + span.warm + span.counted)
        loop.run_until(began + span.warm)
        usage, since = Usage(server.process), now()
        loop.run_until(since + span.counted)
        until = now()
        figures = usage.figures()
        senders.stop()
        loop.run_until(now() + DRAIN_SECONDS, lambda: senders.idle and tally.arrived == len(tally))
        followers.stop()
    finally:
        loop.close()
    delays = [delay for stamp, delay in tally.delays if since <= stamp < until]
    arrived = sum(since <= stamp + delay < until for stamp, delay in tally.delays)
    name = "deliver" if rate is None else "latency"
    figures.update(
        _rates(arrived, until - since, figures),
        **percentiles(delays),
        acknowledged=tally.acknowledged,
        lost=tally.lost,
        doubled=tally.doubled,
        misrouted=tally.misrouted,
        gaps=tally.gaps,
    )
    sends = [delay for stamp, delay in senders.acknowledged if since <= stamp < until]
    figures.update({f"send_{key}": value for key, value in percentiles(sends).items()})
    return Measured(name, server.name, held, figures, quantiles(delays))


def _send_at(loop: Loop, senders: Senders, rate: float, until: float) -> None:
    """Send `rate` a second until then, whether answers come or not."""

    def send_at(due: float) -> None:
        senders.send(due)
        if due + 1 / rate < until:
            loop.call_at(due + 1 / rate, partial(send_at, due + 1 / rate))

    loop.call_at(now(), partial(send_at, now()))


def read(server: Server, span: Span, *, user: int = 0, page: int = 1) -> Measured | None:
    """32 connections fetch a page of a user; None if the server has no pages."""
    loop, dialect = Loop(), server.speak()
    try:
        readers = [dialect.reader(loop, user, page) for _ in range(CONNECTIONS)]
        if any(reader is None for reader in readers):
            return None
        found = _repeat(
            loop,
            server.process,
            [(r.connection, r.read, r.check) for r in readers if r is not None],
            span,
        )
    finally:
        loop.close()
    return Measured("read", server.name, page, found[0], found[1])


def send(server: Server, users: range, span: Span) -> Measured:
    """32 connections send to users who do not poll; their inboxes are counted before and after."""
    loop, dialect = Loop(), server.speak()
    tally = Tally(0)
    before = dialect.counts(users)
    try:
        senders = [dialect.sender(loop, number) for number in range(CONNECTIONS)]
        choose = random.Random(1)

        def request(sender: Sender) -> bytes:
            recipient = users[int(choose.random() * len(users))]
            return sender.send(recipient, tally.send(recipient, 0.0)[1])

        found = _repeat(
            loop,
            server.process,
            [(s.connection, partial(request, s), s.acknowledge) for s in senders],
            span,
        )
    finally:
        loop.close()
    after = dialect.counts(users)
    if before is not None and after is not None:
        stored = after - before
        found[0].update(lost=max(0, len(tally) - stored), doubled=max(0, stored - len(tally)))
    return Measured("send", server.name, len(users), found[0], found[1])


Ask = tuple[Connection, Callable[[], bytes], Callable[[int, bytes, bytes], bytes | None]]


def ceiling(process: ServerProcess, span: Span) -> Measured:
    """32 connections ask a server that does nothing: how fast the generator itself is."""
    loop = Loop()
    request = b"GET /ceiling HTTP/1.1\r\nHost: bench\r\n\r\n"

    def check(status: int, head: bytes, body: bytes) -> None:
        if status != 200:
            raise Unexpected(f"{status} {body!r}")

    try:
        connections = [loop.connect(process.address) for _ in range(CONNECTIONS)]
        asks: list[Ask] = [(connection, lambda: request, check) for connection in connections]
        figures, latencies = _repeat(loop, process, asks, span)
    finally:
        loop.close()
    return Measured("ceiling", "nothing", CONNECTIONS, figures, latencies)


def _repeat(
    loop: Loop, process: ServerProcess, asks: list[Ask], span: Span
) -> tuple[dict[str, float], list[tuple[float, float]]]:
    """Each connection asks again when it has its answer; figures and latencies.

    Returns when every request that was begun has been answered.
    """
    delays: list[float] = []
    counting = stopping = False
    busy = len(asks)

    def begin(ask: Ask) -> None:
        connection, request, check = ask
        began = 0.0

        def answered(status: int, head: bytes, body: bytes) -> None:
            nonlocal began, busy
            question = check(status, head, body)
            if question is not None:
                connection.ask(question, answered)
                return
            at = now()
            if counting:
                delays.append(at - began)
            if stopping:
                busy -= 1
            else:
                began = at
                connection.ask(request(), answered)

        began = now()
        connection.ask(request(), answered)

    for ask in asks:
        begin(ask)
    loop.run_until(now() + span.warm)
    usage, since, counting = Usage(process), now(), True
    loop.run_until(since + span.counted)
    until, counting, stopping = now(), False, True
    figures = usage.figures()
    if not loop.run_until(now() + DRAIN_SECONDS, lambda: not busy):
        raise Unexpected(f"{busy} requests were not answered")
    figures.update(_rates(len(delays), until - since, figures), **percentiles(delays))
    return figures, quantiles(delays)


def park(server: Server, held: int, seconds: float) -> Measured:
    """`held` polls, one a user, and nothing else: memory, idle CPU, and what waking one takes."""
    loop, dialect = Loop(), server.speak()
    try:
        tally = Tally(held)
        followers = Followers(loop, dialect, held, tally)
        senders = Senders(loop, dialect, 1, held, tally)
        before = server.process.resident_bytes
        followers.start()
        usage = Usage(server.process)
        loop.run_until(now() + seconds)
        idle = usage.figures()["cpu_server"]
        growth = server.process.resident_bytes - before
        for count in range(1, WAKES + 1):
            senders.send(now())
            loop.run_until(
                now() + DRAIN_SECONDS,
                lambda count=count: senders.idle and tally.arrived == count,  # type: ignore[misc]
            )
        followers.stop()
    finally:
        loop.close()
    delays = [delay for _, delay in tally.delays]
    figures = {
        "kilobytes": growth / 1024 / held,
        "megabytes": growth / 1024 / 1024,
        "cpu_idle": idle,
        **percentiles(delays),
        "lost": tally.lost,
        "doubled": tally.doubled,
    }
    return Measured("park", server.name, held, figures, quantiles(delays))


def _rates(count: int, seconds: float, usage: dict[str, float]) -> dict[str, float]:
    """A second of time, and a second of the server's CPU: that one other programs disturb less."""
    rate = count / seconds
    share = usage["cpu_server"] / 100
    return {"rate": rate, "per_cpu": rate / share} if share else {"rate": rate}


def _own_cpu() -> float:
    times = os.times()
    return times.user + times.system
