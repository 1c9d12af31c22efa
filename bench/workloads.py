"""The workloads without followers: read, send and ceiling."""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import partial

from bench.delivery_check import DeliveryCheck
from bench.load_client import Connection, LoadClient, now
from bench.processes import ServerProcess
from bench.protocols import Sender, UnexpectedResponse
from bench.results import Result, percentiles, quantiles
from bench.servers import Server
from bench.usage import DRAIN_SECONDS, CPUUsage, Timing, throughput

CONNECTIONS = 32


def read(server: Server, timing: Timing, *, user: int = 0, page: int = 1) -> Result | None:
    """32 connections fetch a page of a user; None if the server has no pages."""
    if server.new_protocol is None:
        return None
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


def send(server: Server, users: range, timing: Timing) -> Result | None:
    """32 connections send to users who do not poll; inboxes are counted before and after.

    None if the server has no polls.
    """
    if server.new_protocol is None:
        return None
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
    figures.update(throughput(len(latencies), until - since, figures), **percentiles(latencies))
    return figures, quantiles(latencies)
