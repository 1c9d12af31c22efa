"""The workloads with followers: deliver, latency and park."""

from __future__ import annotations

from functools import partial

from bench.delivery_check import DeliveryCheck
from bench.load_client import LoadClient, now
from bench.results import Result, percentiles, quantiles
from bench.servers import Server
from bench.traffic import Followers, Senders
from bench.usage import DRAIN_SECONDS, CPUUsage, Timing, throughput

SENDERS = 16
WAKES = 50


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
        throughput(arrived, until - since, figures),
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
