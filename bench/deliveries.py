"""The workloads with deliveries: deliver, latency, stream and park, over polls and over streams."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from bench.delivery_check import DeliveryCheck
from bench.load_client import LoadClient, now
from bench.protocols import SendProtocol
from bench.results import Result, percentiles, quantiles
from bench.servers import Server
from bench.traffic import Followers, Senders, Subscribers
from bench.usage import DRAIN_SECONDS, CPUUsage, Timing, throughput

SENDERS = 16
WAKES = 50
LATE_SECONDS = 0.1
"""How long duplicates are awaited after all messages have arrived."""

Receivers = Callable[[LoadClient, DeliveryCheck], Followers | Subscribers]


def deliver(server: Server, held: int, timing: Timing, rate: float | None = None) -> Result | None:
    """`held` followers hold polls; senders send at full speed, or `rate` messages per second.

    Latency is measured from when a send was due until the follower has received the message. None
    if the server has no polls.
    """
    if server.new_protocol is None:
        return None
    protocol = server.new_protocol()

    def followers(client: LoadClient, check: DeliveryCheck) -> Followers:
        return Followers(client, protocol, held, check)

    name = "deliver" if rate is None else "latency"
    return _deliver(name, server, protocol, followers, held, timing, rate)


def stream(server: Server, held: int, timing: Timing) -> Result:
    """The same at full speed, over `held` streams."""
    protocol = server.new_streams()

    def subscribers(client: LoadClient, check: DeliveryCheck) -> Subscribers:
        return Subscribers(client, protocol, held, check)

    return _deliver("stream", server, protocol, subscribers, held, timing)


def park(server: Server, held: int, seconds: float) -> Result | None:
    """`held` polls, one per user, without traffic: memory, idle CPU, and latency of waking one.

    None if the server has no polls.
    """
    if server.new_protocol is None:
        return None
    protocol = server.new_protocol()

    def followers(client: LoadClient, check: DeliveryCheck) -> Followers:
        return Followers(client, protocol, held, check)

    return _park("park", server, protocol, followers, held, seconds)


def park_streams(server: Server, held: int, seconds: float) -> Result:
    """The same with streams."""
    protocol = server.new_streams()

    def subscribers(client: LoadClient, check: DeliveryCheck) -> Subscribers:
        return Subscribers(client, protocol, held, check)

    return _park("stream-park", server, protocol, subscribers, held, seconds)


def _deliver(
    name: str,
    server: Server,
    protocol: SendProtocol,
    receivers: Receivers,
    held: int,
    timing: Timing,
    rate: float | None = None,
) -> Result:
    client = LoadClient()
    try:
        check = DeliveryCheck(held)
        senders = Senders(client, protocol, SENDERS, held, check)
        receivers(client, check).start()
        began = now()
        if rate is None:
            senders.repeat()
        else:
            send_at(client, senders, rate, began + timing.warmup + timing.measured)
        client.run_until(began + timing.warmup)
        usage, since = CPUUsage(server.process), now()
        client.run_until(since + timing.measured)
        until = now()
        figures = usage.figures()
        senders.stop()
        client.run_until(
            now() + DRAIN_SECONDS, lambda: senders.idle and check.arrived == len(check)
        )
        client.run_until(now() + LATE_SECONDS)
    finally:
        client.close()
    latencies = [latency for due, latency in check.latencies if since <= due < until]
    arrived = sum(since <= due + latency < until for due, latency in check.latencies)
    figures.update(
        throughput(arrived, until - since, figures), **percentiles(latencies), **check.figures()
    )
    sends = [latency for due, latency in senders.acknowledged if since <= due < until]
    figures.update({f"send_{key}": value for key, value in percentiles(sends).items()})
    return Result(name, server.name, held, figures, quantiles(latencies))


def send_at(client: LoadClient, senders: Senders, rate: float, until: float) -> None:
    """Send `rate` messages per second until then, whether responses arrive or not."""

    def send(due: float) -> None:
        senders.send(due)
        if due + 1 / rate < until:
            client.call_at(due + 1 / rate, partial(send, due + 1 / rate))

    client.call_at(now(), partial(send, now()))


def _park(
    name: str,
    server: Server,
    protocol: SendProtocol,
    receivers: Receivers,
    held: int,
    seconds: float,
) -> Result:
    client = LoadClient()
    try:
        check = DeliveryCheck(held)
        before = server.process.resident_bytes
        receivers(client, check).start()
        usage = CPUUsage(server.process)
        client.run_until(now() + seconds)
        idle = usage.figures()["cpu_server"]
        growth = server.process.resident_bytes - before
        # Connected now: servers close connections without requests, within less than `seconds`.
        senders = Senders(client, protocol, 1, held, check)
        for count in range(1, WAKES + 1):
            senders.send(now())
            client.run_until(
                now() + DRAIN_SECONDS,
                lambda count=count: senders.idle and check.arrived == count,  # type: ignore[misc]
            )
        client.run_until(now() + LATE_SECONDS)
    finally:
        client.close()
    latencies = [latency for _, latency in check.latencies]
    figures = {
        "kilobytes": growth / 1024 / held,
        "megabytes": growth / 1024 / 1024,
        "cpu_idle": idle,
        **percentiles(latencies),
        **check.figures(),
    }
    return Result(name, server.name, held, figures, quantiles(latencies))
