"""What conversations, unread counts and positions cost, whatever the numbers of messages.

An account has received messages from a number of others in turn, and has sent each of them one. The
calls are those of the store, one at a time; times include the way to its thread or server and back.

    python -m bench.conversations --db sqlite:conversations.db
    python -m bench.conversations --db postgresql:///chatd_conversations
"""

from __future__ import annotations

import argparse
import sqlite3
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from itertools import count
from pathlib import Path
from typing import Any, Final, NamedTuple

from bench.first_release import POSTGRES, SQLITE, Dialect
from bench.machine import describe

SIZES: Final = ((1, 10), (1, 1_000_000), (10_000, 10_000), (10_000, 1_000_000))
"""Conversations, and messages in them."""
CALLS: Final = 300
OWNER: Final = 1


class Cost(NamedTuple):
    """The least, the median and the 99th percentile of a call, in milliseconds.

    Other programs affect the least hardly, and the 99th percentile most.
    """

    least: float
    median: float
    p99: float


class Row(NamedTuple):
    """What calls cost with one size; `first` are the milliseconds of the first use."""

    conversations: int
    messages: int
    first: float
    costs: dict[str, Cost]


def statements(dialect: Dialect, conversations: int, messages: int) -> list[str]:
    """SQL that fills a database; the owner's peers have the ids from 2."""
    peers = f"{dialect.numbers.format(count=conversations)} AS peers"
    received = f"{dialect.numbers.format(count=messages)} AS messages"
    at = 1_700_000_000_000_000
    everybody = f"{dialect.numbers.format(count=conversations + 1)} AS everybody"
    return [
        "INSERT INTO account (username, username_folded, email, password_hash, date_joined)"
        f" SELECT 'user-' || (k + 1), 'user-' || (k + 1), 'x@y', 'hash', 0 FROM {everybody}"
        " ORDER BY k",
        "INSERT INTO message (received_by, seq, sent_by, sent_at, text)"
        f" SELECT {OWNER}, k + 1, 2 + k % {conversations}, {at} + k, 'hai' FROM {received}",
        "INSERT INTO message (received_by, seq, sent_by, sent_at, text)"
        f" SELECT k + 2, 1, {OWNER}, {at} - 1, 'hai' FROM {peers}",
        "INSERT INTO inbox (user_id, last_seq, last_sent_at)"
        " SELECT received_by, max(seq), max(sent_at) FROM message GROUP BY received_by",
        f"INSERT INTO contact (sent_by, received_by) SELECT k + 2, {OWNER} FROM {peers}",
        f"INSERT INTO contact (sent_by, received_by) SELECT {OWNER}, k + 2 FROM {peers}",
    ]


INDEX: Final = (
    "INSERT INTO conversation SELECT received_by, sent_by, sent_at, seq FROM message"
    " ORDER BY received_by, sent_by, sent_at, seq",
    "UPDATE inbox SET indexed_seq = last_seq",
)
"""What SQLite has besides."""


def fill(db: str, conversations: int, messages: int) -> None:
    """Fill a database that has the tables, and nothing in them."""
    scheme, _, path = db.partition(":")
    if scheme == "sqlite":
        with closing(sqlite3.connect(path, isolation_level=None)) as file:
            file.execute("PRAGMA synchronous = OFF")
            file.execute("BEGIN")
            for sql in (*statements(SQLITE, conversations, messages), *INDEX):
                file.execute(sql)
            file.execute("COMMIT")
        return
    import psycopg2

    with closing(psycopg2.connect(db)) as connection:
        connection.autocommit = True
        with connection.cursor() as cursor:
            for sql in statements(POSTGRES, conversations, messages):
                cursor.execute(sql)
            cursor.execute("VACUUM ANALYZE")


async def measure(store: Any, conversations: int, messages: int, calls: int) -> Row:
    """Measure the calls on an open store."""
    from chatd.model_sync import ListConversations, MarkRead, ReadChanges

    began = time.perf_counter()
    await store.sync.synchronise(OWNER)
    first = 1000 * (time.perf_counter() - began)
    changes = await store.sync.changes(ReadChanges(OWNER, None, 100))
    newest = await store.sync.conversations(ListConversations(OWNER, 50))
    peer = conversations // 2 + 2
    # Positions move forward only, by one message in a call.
    moves = min(calls, messages)
    read, delivered = count(messages - moves), count(messages - moves)
    calls_of = {
        "list": (lambda: store.sync.conversations(ListConversations(OWNER, 50)), calls),
        "next in list": (
            lambda: store.sync.conversations(ListConversations(OWNER, 50, newest.older)),
            calls,
        ),
        "positions": (lambda: store.sync.peer_positions(OWNER, peer), calls),
        "mark read": (lambda: store.sync.mark_read(MarkRead(OWNER, peer, next(read) + 1)), moves),
        "delivered": (lambda: store.sync.record_delivered({OWNER: next(delivered) + 1}), moves),
        "no changes": (
            lambda: store.sync.changes(ReadChanges(OWNER, changes.position, 100)),
            calls,
        ),
    }
    costs = {name: await cost(*each) for name, each in calls_of.items()}
    return Row(conversations, messages, first, costs)


async def cost(call: Callable[[], Awaitable[object]], calls: int) -> Cost:
    """Time a call again and again."""
    times = []
    for _ in range(calls):
        began = time.perf_counter()
        await call()
        times.append(1000 * (time.perf_counter() - began))
    times.sort()
    return Cost(times[0], times[len(times) // 2], times[len(times) * 99 // 100])


async def measure_new(
    reactor: Any, db: str, conversations: int, messages: int, calls: int = CALLS
) -> Row:
    """Fill the empty database `db` and measure the calls on it."""
    # Only the composition root maps a URL to a store.
    from chatd.compose.storage import compose_store_and_bus
    from chatd.config import load
    from chatd.metrics import Metrics

    settings, _ = load({"db": db}, {})
    store, _ = compose_store_and_bus(settings, reactor, Metrics())
    await store.open()
    await store.close()
    fill(db, conversations, messages)
    store, _ = compose_store_and_bus(settings, reactor, Metrics())
    await store.open()
    try:
        return await measure(store, conversations, messages, calls)
    finally:
        await store.close()


@contextmanager
def new_database(db: str, name: str) -> Iterator[str]:
    """A new database beside `db`, which is removed afterwards."""
    scheme, _, path = db.partition(":")
    if scheme == "sqlite":
        file = Path(f"{path}-{name}")
        try:
            yield f"sqlite:{file}"
        finally:
            for each in file.parent.glob(f"{file.name}*"):
                each.unlink()
        return
    import psycopg2
    from psycopg2.extensions import make_dsn

    with closing(psycopg2.connect(db)) as connection:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute(f'CREATE DATABASE "{name}"')
            try:
                yield make_dsn(db, dbname=name)
            finally:
                cursor.execute(f'DROP DATABASE "{name}" WITH (FORCE)')


def table(rows: Sequence[Row]) -> str:
    """The results in Markdown: least, median and 99th percentile, in milliseconds."""
    names = list(rows[0].costs)
    lines = [
        f"| conversations | messages | first use | {' | '.join(names)} |",
        f"| ---: | ---: | ---: |{' ---: |' * len(names)}",
    ]
    for row in rows:
        costs = [
            f"{each.least:.1f}, {each.median:.1f}, {each.p99:.0f}" for each in row.costs.values()
        ]
        cells = [f"{row.conversations:,}", f"{row.messages:,}", f"{row.first:.0f}", *costs]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


async def run(reactor: Any, args: argparse.Namespace) -> None:
    rows = []
    for conversations, messages in SIZES:
        with new_database(args.db, f"chatd_bench_{conversations}_{messages}") as db:
            rows.append(await measure_new(reactor, db, conversations, messages))
    print(table(rows))
    for name, value in describe().items():
        print(f"{name}: {value}")


def main() -> None:
    """Measure all sizes and print the table."""
    parser = argparse.ArgumentParser(description="Measure conversations and positions.")
    parser.add_argument(
        "--db",
        required=True,
        help="sqlite:PATH or postgresql://...; databases are made beside it",
    )
    args = parser.parse_args()

    from twisted.internet.defer import Deferred
    from twisted.internet.task import react

    react(lambda reactor: Deferred.fromCoroutine(run(reactor, args)))


if __name__ == "__main__":
    main()
