"""Benchmark of sends on PostgreSQL: one statement per batch against one statement per message.

The naive side follows txpostgres's examples: a `ConnectionPool`, and for each message one statement
that advances the inbox and stores the message. Both sides guarantee the same order and durability
to the same number of senders, each of which waits for its result. Only the store also notifies
other processes and records the results of batches.

    python -m bench.naive_postgres --db postgresql:///chatd_bench --senders 32 --seconds 5

It creates chatd's tables and some accounts in the database.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import secrets
import statistics
from collections.abc import Awaitable, Callable
from typing import Any

from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import react

RECIPIENTS = 200

NAIVE = """
WITH advanced AS (
    UPDATE inbox
    SET last_seq = last_seq + 1,
        last_sent_at = greatest(last_sent_at, (extract(epoch FROM clock_timestamp()) * 1e6)::bigint)
    WHERE user_id = %s AND NOT closed
    RETURNING user_id, last_seq, last_sent_at
)
INSERT INTO message (received_by, seq, sent_by, sent_at, text)
SELECT user_id, last_seq, %s, last_sent_at, %s FROM advanced
RETURNING seq, sent_at
"""

Send = Callable[[int, int], Awaitable[object]]


async def measure(reactor: Any, send: Send, ids: list[int], options: argparse.Namespace) -> Any:
    """Sends per second, their latency in milliseconds, and CPU microseconds per send."""
    times: list[float] = []
    rng = random.Random(1)
    # The first second is for warming up.
    start = reactor.seconds() + 1
    end = start + options.seconds

    async def sender(number: int) -> None:
        while (sent := reactor.seconds()) < end:
            await send(ids[number % len(ids)], rng.choice(ids))
            if sent >= start:
                times.append(reactor.seconds() - sent)

    before = _cpu_seconds()
    await gatherResults([Deferred.fromCoroutine(sender(n)) for n in range(options.senders)])
    cpu_seconds = (_cpu_seconds() - before) * options.seconds / (options.seconds + 1)
    times.sort()
    return {
        "sends_s": round(len(times) / options.seconds),
        "p50": round(1000 * statistics.median(times), 2),
        "p99": round(1000 * times[int(len(times) * 0.99)], 2),
        "cpu_us": round(1e6 * cpu_seconds / len(times)),
    }


def _cpu_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


async def compare(reactor: Any, options: argparse.Namespace) -> None:
    """Measure the sides alternately and print a line of JSON for each run."""
    from txpostgres.txpostgres import ConnectionPool

    from chatd.compose.storage import compose_store_and_bus
    from chatd.config import load
    from chatd.domain.batch import Batcher
    from chatd.metrics import Metrics
    from chatd.model import Draft

    text = "x" * 40
    store, _ = compose_store_and_bus(load({"db": options.db}, {})[0], reactor, Metrics())
    await store.open()
    name = secrets.token_hex(4)
    ids = [
        (await store.add_account(f"{name}.{number}", "a@example.org", "!")).id
        for number in range(RECIPIENTS)
    ]
    batcher: Batcher[Draft, Any] = Batcher(
        store.append, reactor, max_queued=5000, max_batch_size=512
    )

    pool = ConnectionPool(None, options.db, min=options.connections)
    await pool.start()
    sides: dict[str, Send] = {
        "naive": lambda sent_by, to: pool.runQuery(NAIVE, (to, sent_by, text)),
        "batched": lambda sent_by, to: batcher.submit(Draft(sent_by, to, text)),
    }
    for _ in range(options.rounds):
        for side, send in sides.items():
            result = await measure(reactor, send, ids, options)
            print(json.dumps({"side": side, "senders": options.senders, **result}))
    pool.close()
    await store.close()


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--db", required=True, help="a PostgreSQL database for the benchmark")
    parser.add_argument("--senders", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--connections", type=int, default=4, help="size of the naive side's pool")
    options = parser.parse_args()
    react(lambda reactor: Deferred.fromCoroutine(compare(reactor, options)))


if __name__ == "__main__":
    main()
