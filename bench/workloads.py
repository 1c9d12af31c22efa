"""The workloads: deliver, latency, read, send, park and ceiling."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from bench.delivery_check import DeliveryCheck
from bench.load_client import Connection, LoadClient, now
from bench.processes import ServerProcess, machine_busy_seconds
from bench.protocols import Sender, UnexpectedResponse
from bench.results import Result, percentiles, quantiles
from bench.servers import Server
from bench.traffic import Followers, Senders

CONNECTIONS = 32
SENDERS = 16
DRAIN_SECONDS = 10.0
WAKES = 50


@dataclass(frozen=True)
class Timing:
    """Seconds that a workload runs before and during the measurement."""

    warmup: float
    measured: float


class CPUUsage:
    """CPU usage of the server, the generator and everything else, from construction on."""

    def __init__(self, process: ServerProcess) -> None:
        self._process = process
        self._began = now()
        self._server = process.cpu_seconds
        self._own = _own_cpu()
        self._machine = machine_busy_seconds()

    def figures(self) -> dict[str, float]:
        """CPU usage in percent of a core."""
        seconds = now() - self._began
        server = self._process.cpu_seconds - self._server
        own = _own_cpu() - self._own
        others = machine_busy_seconds() - self._machine - server - own
        return {
            "cpu_server": 100 * server / seconds,
            "cpu_generator": 100 * own / seconds,
            "cpu_others": max(0.0, 100 * others / seconds),
        }


def deliver(server: Server, held: int, timing: Timing, rate: float | None = None) -> Result:
    """`held` followers hold polls; senders send at full speed, or `rate` messages per second.

    Latency is measured from when a send was due until the follower has received the message.
    """
    client, protocol = LoadClient(), server.new_protocol()
    try:
        check = DeliveryCheck(held)
        followers = Followers(client, protocol, held, check)
        senders = Senders(client, protocol, SENDERS, held, check)
        followers.start()
        began = now()
        if rate is None:
            senders.repeat()
        else:
            _send_at(client, senders, rate, began + timing.warmup + timing.measured)
        client.run_until(began + timing.warmup)
        usage, since = CPUUsage(server.process), now()
        client.run_until(since + timing.measured)
        until = now()
        figures = usage.figures()
        senders.stop()
        client.run_until(
            now() + DRAIN_SECONDS, lambda: senders.idle and check.arrived == len(check)
        )
        followers.stop()
    finally:
        client.close()
    latencies = [latency for due, latency in check.latencies if since <= due < until]
    arrived = sum(since <= due + latency < until for due, latency in check.latencies)
    name = "deliver" if rate is None else "latency"
    figures.update(
        _throughput(arrived, until - since, figures),
        **percentiles(latencies),
        acknowledged=check.acknowledged,
        lost=check.lost,
        duplicated=check.duplicated,
        misrouted=check.misrouted,
        gaps=check.gaps,
    )
    sends = [latency for due, latency in senders.acknowledged if since <= due < until]
    figures.update({f"send_{key}": value for key, value in percentiles(sends).items()})
    return Result(name, server.name, held, figures, quantiles(latencies))


def _send_at(client: LoadClient, senders: Senders, rate: float, until: float) -> None:
    """Send `rate` messages per second until then, whether responses arrive or not."""

    def send_at(due: float) -> None:
        senders.send(due)
        if due + 1 / rate < until:
            client.call_at(due + 1 / rate, partial(send_at, due + 1 / rate))

    client.call_at(now(), partial(send_at, now()))


def read(server: Server, timing: Timing, *, user: int = 0, page: int = 1) -> Result | None:
    """32 connections fetch a page of a user; None if the server has no pages."""
    client, protocol = LoadClient(), server.new_protocol()
    try:
        readers = [protocol.reader(client, user, page) for _ in range(CONNECTIONS)]
        if any(reader is None for reader in readers):
            return None
        found = _repeat(
            client,
            server.process,
            [(r.connection, r.read, r.check) for r in readers if r is not None],
            timing,
        )
    finally:
        client.close()
    return Result("read", server.name, page, found[0], found[1])


def send(server: Server, users: range, timing: Timing) -> Result:
    """32 connections send to users who do not poll; inboxes are counted before and after."""
    client, protocol = LoadClient(), server.new_protocol()
    check = DeliveryCheck(0)
    before = protocol.counts(users)
    try:
        senders = [protocol.sender(client, number) for number in range(CONNECTIONS)]
        random_numbers = random.Random(1)

        def request(sender: Sender) -> bytes:
            recipient = users[int(random_numbers.random() * len(users))]
            return sender.send(recipient, check.send(recipient, 0.0)[1])

        found = _repeat(
            client,
            server.process,
            [(s.connection, partial(request, s), s.acknowledge) for s in senders],
            timing,
        )
    finally:
        client.close()
    after = protocol.counts(users)
    if before is not None and after is not None:
        stored = after - before
        found[0].update(lost=max(0, len(check) - stored), duplicated=max(0, stored - len(check)))
    return Result("send", server.name, len(users), found[0], found[1])


Exchange = tuple[Connection, Callable[[], bytes], Callable[[int, bytes, bytes], bytes | None]]


def ceiling(process: ServerProcess, timing: Timing) -> Result:
    """32 connections send requests to a trivial server, to measure the generator itself."""
    client = LoadClient()
    request = b"GET /ceiling HTTP/1.1\r\nHost: bench\r\n\r\n"

    def check(status: int, head: bytes, body: bytes) -> None:
        if status != 200:
            raise UnexpectedResponse(f"{status} {body!r}")

    try:
        connections = [client.connect(process.address) for _ in range(CONNECTIONS)]
        exchanges: list[Exchange] = [
            (connection, lambda: request, check) for connection in connections
        ]
        figures, latencies = _repeat(client, process, exchanges, timing)
    finally:
        client.close()
    return Result("ceiling", "nothing", CONNECTIONS, figures, latencies)


def _repeat(
    client: LoadClient, process: ServerProcess, exchanges: list[Exchange], timing: Timing
) -> tuple[dict[str, float], list[tuple[float, float]]]:
    """Repeat requests on each connection; returns figures and latency quantiles.

    Returns once all responses have arrived.
    """
    latencies: list[float] = []
    counting = stopping = False
    busy = len(exchanges)

    def start(exchange: Exchange) -> None:
        connection, request, check = exchange
        started = 0.0

        def on_response(status: int, head: bytes, body: bytes) -> None:
            nonlocal started, busy
            follow_up = check(status, head, body)
            if follow_up is not None:
                connection.request(follow_up, on_response)
                return
            at = now()
            if counting:
                latencies.append(at - started)
            if stopping:
                busy -= 1
            else:
                started = at
                connection.request(request(), on_response)

        started = now()
        connection.request(request(), on_response)

    for exchange in exchanges:
        start(exchange)
    client.run_until(now() + timing.warmup)
    usage, since, counting = CPUUsage(process), now(), True
    client.run_until(since + timing.measured)
    until, counting, stopping = now(), False, True
    figures = usage.figures()
    if not client.run_until(now() + DRAIN_SECONDS, lambda: not busy):
        raise UnexpectedResponse(f"{busy} requests got no response")
    figures.update(_throughput(len(latencies), until - since, figures), **percentiles(latencies))
    return figures, quantiles(latencies)


def park(server: Server, held: int, seconds: float) -> Result:
    """`held` polls, one per user, without traffic: memory, idle CPU, and latency of waking one."""
    client, protocol = LoadClient(), server.new_protocol()
    try:
        check = DeliveryCheck(held)
        followers = Followers(client, protocol, held, check)
        senders = Senders(client, protocol, 1, held, check)
        before = server.process.resident_bytes
        followers.start()
        usage = CPUUsage(server.process)
        client.run_until(now() + seconds)
        idle = usage.figures()["cpu_server"]
        growth = server.process.resident_bytes - before
        for count in range(1, WAKES + 1):
            senders.send(now())
            client.run_until(
                now() + DRAIN_SECONDS,
                lambda count=count: senders.idle and check.arrived == count,  # type: ignore[misc]
            )
        followers.stop()
    finally:
        client.close()
    latencies = [latency for _, latency in check.latencies]
    figures = {
        "kilobytes": growth / 1024 / held,
        "megabytes": growth / 1024 / 1024,
        "cpu_idle": idle,
        **percentiles(latencies),
        "lost": check.lost,
        "duplicated": check.duplicated,
    }
    return Result("park", server.name, held, figures, quantiles(latencies))


def _throughput(count: int, seconds: float, usage: dict[str, float]) -> dict[str, float]:
    """Rates per second, and per CPU second of the server, which other programs affect less."""
    rate = count / seconds
    share = usage["cpu_server"] / 100
    return {"rate": rate, "per_cpu": rate / share} if share else {"rate": rate}


def _own_cpu() -> float:
    times = os.times()
    return times.user + times.system
