"""Sends a second into PostgreSQL: the store's one statement a batch beside one a message.

The naive side is what txpostgres' own examples lead to: a `ConnectionPool`, and for each message
one statement that moves the inbox on and stores the message. Both sides keep the same promises of
order and durability, for the same number of senders who each wait for their answer; the store
also tells other processes and remembers its answer, the naive one does neither.

    python -m bench.naive_postgres --db postgresql:///chatd_bench --senders 32 --seconds 5

The database is given chatd's tables and some accounts.
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
WITH moved AS (
    UPDATE inbox
    SET last_seq = last_seq + 1,
        last_sent_at = greatest(last_sent_at, (extract(epoch FROM clock_timestamp()) * 1e6)::bigint)
    WHERE user_id = %s AND NOT closed
    RETURNING user_id, last_seq, last_sent_at
)
INSERT INTO message (received_by, seq, sent_by, sent_at, text)
SELECT user_id, last_seq, %s, last_sent_at, %s FROM moved
RETURNING seq, sent_at
"""

Send = Callable[[int, int], Awaitable[object]]


async def measured(reactor: Any, send: Send, ids: list[int], asked: argparse.Namespace) -> Any:
    """Sends a second, their times in milliseconds, and CPU microseconds of this process a send."""
    times: list[float] = []
    chance = random.Random(1)
    begins = reactor.seconds() + 1
    ends = begins + asked.seconds

    async def sender(number: int) -> None:
        while (began := reactor.seconds()) < ends:
            await send(ids[number % len(ids)], chance.choice(ids))
            if began >= begins:
                times.append(reactor.seconds() - began)

    before = _cpu()
    await gatherResults([Deferred.fromCoroutine(sender(n)) for n in range(asked.senders)])
    times.sort()
    return {
        "sends_s": round(len(times) / asked.seconds),
        "p50": round(1000 * statistics.median(times), 2),
        "p99": round(1000 * times[int(len(times) * 0.99)], 2),
        "cpu_us": round(1e6 * (_cpu() - before) / len(times) * asked.seconds / (asked.seconds + 1)),
    }


def _cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


async def compare(reactor: Any, asked: argparse.Namespace) -> None:
    """Measure both sides, alternating, and write one line of JSON each."""
    from txpostgres.txpostgres import ConnectionPool

    from chatd.compose import compose_store_and_bus
    from chatd.config import load
    from chatd.domain.batch import Batcher
    from chatd.metrics import Metrics
    from chatd.model import Draft

    text = "x" * 40
    store, _ = compose_store_and_bus(load({"db": asked.db}, {})[0], reactor, Metrics())
    await store.open()
    name = secrets.token_hex(4)
    ids = [
        (await store.add_account(f"{name}.{number}", "a@example.org", "!")).id
        for number in range(RECIPIENTS)
    ]
    batcher: Batcher[Draft, Any] = Batcher(
        store.append, reactor, max_queued=5000, max_batch_size=512
    )

    pool = ConnectionPool(None, asked.db, min=asked.connections)
    await pool.start()
    sides: dict[str, Send] = {
        "naive": lambda sent_by, to: pool.runQuery(NAIVE, (to, sent_by, text)),
        "batched": lambda sent_by, to: batcher.submit(Draft(sent_by, to, text)),
    }
    for _ in range(asked.rounds):
        for side, send in sides.items():
            result = await measured(reactor, send, ids, asked)
            print(json.dumps({"side": side, "senders": asked.senders, **result}))
    pool.close()
    await store.close()


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--db", required=True, help="a PostgreSQL database for this")
    parser.add_argument("--senders", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--connections", type=int, default=4, help="of the naive side's pool")
    asked = parser.parse_args()
    react(lambda reactor: Deferred.fromCoroutine(compare(reactor, asked)))


if __name__ == "__main__":
    main()
