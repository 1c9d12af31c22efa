"""Upgrades a database of the first release, checks that nothing is lost, and measures it.

The database has to be new: a file that does not exist, or an empty database on PostgreSQL.

    python -m bench.upgrade --db sqlite:upgrade.db
    python -m bench.upgrade --db postgresql:///chatd_upgrade --messages 100000
"""

from __future__ import annotations

import argparse
import hashlib
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple

from bench import first_release
from bench.machine import describe

# What no upgrade may change, in columns that every version has.
CONTENT: Final = {
    "accounts": "SELECT id, username, username_folded, email, password_hash, date_joined,"
    " deleted_at FROM account ORDER BY id",
    "messages": "SELECT received_by, seq, sent_by, sent_at, text FROM message ORDER BY 1, 2",
    "inboxes": "SELECT user_id, last_seq, last_sent_at FROM inbox ORDER BY 1",
    "tokens": "SELECT digest, user_id, created_at FROM token ORDER BY 1",
    "keys": "SELECT sent_by, key, fingerprint, seq, sent_at FROM idempotency ORDER BY 1, 2",
}
# What upgrades add: queries that find what is missing or wrong.
FAULTS: Final = {
    "revised messages": "SELECT 1 FROM message WHERE edited_at IS NOT NULL"
    " OR deleted_at IS NOT NULL",
    # All texts are ASCII.
    "inboxes with other bytes": "SELECT user_id FROM inbox WHERE text_bytes <>"
    " (SELECT coalesce(sum(length(text)), 0) FROM message WHERE received_by = user_id)",
    "missing contacts": "SELECT DISTINCT sent_by, received_by FROM message"
    " EXCEPT SELECT sent_by, received_by FROM contact",
    "contacts without messages": "SELECT sent_by, received_by FROM contact"
    " EXCEPT SELECT sent_by, received_by FROM message",
    "tokens with one id": "SELECT id FROM token GROUP BY id HAVING count(*) > 1",
    "limited tokens": "SELECT 1 FROM token WHERE scopes <> 7 OR expires_at IS NOT NULL",
}
SQLITE_FAULTS: Final = {
    "messages that are not indexed": "SELECT received_by, sent_by, sent_at, seq FROM message"
    " EXCEPT SELECT received_by, sent_by, sent_at, seq FROM conversation",
    "indexed messages that do not exist": "SELECT received_by, sent_by, sent_at, seq"
    " FROM conversation EXCEPT SELECT received_by, sent_by, sent_at, seq FROM message",
    "inboxes that are not indexed": "SELECT 1 FROM inbox WHERE indexed_seq <> last_seq",
}

# What processes of the version before do meanwhile, without an effect.
PROBES: Final = {
    "a read of messages": "SELECT text FROM message WHERE received_by = 1 AND seq = 1",
    "a send": "DELETE FROM message WHERE received_by = 0",
    "a log-in": "DELETE FROM token WHERE user_id = 0",
}
PROBE_SECONDS: Final = 0.01

Rows = Callable[[str], Iterator[tuple[Any, ...]]]


class Upgrade(NamedTuple):
    """An upgrade that has lost nothing: seconds, bytes, and the longest wait of each probe.

    `peak` is the largest size of all files meanwhile; of PostgreSQL, the size with its log.
    """

    seconds: float
    before: int
    after: int
    peak: int
    waits: dict[str, float]


class WrongUpgrade(Exception):
    """The upgrade has lost or changed something."""


async def upgrade_sqlite(reactor: Any, path: Path, accounts: int, messages: int) -> Upgrade:
    """Fill a new file and upgrade it."""
    first_release.fill_sqlite(str(path), accounts, messages)
    with closing(sqlite3.connect(path)) as db:
        before = content(db.execute)
    size = path.stat().st_size
    peak = size

    def measure() -> None:
        nonlocal peak
        files = path.parent.glob(f"{path.name}*")
        peak = max(peak, sum(file.stat().st_size for file in files if file.exists()))

    with repeatedly(measure):
        seconds = await open_and_close(reactor, f"sqlite:{path}")
    with closing(sqlite3.connect(path)) as db:
        check(db.execute, before, {**FAULTS, **SQLITE_FAULTS})
    return Upgrade(seconds, size, path.stat().st_size, peak, {})


async def upgrade_postgres(reactor: Any, url: str, accounts: int, messages: int) -> Upgrade:
    """Fill an empty database and upgrade it, while others use it."""
    import psycopg2

    with closing(psycopg2.connect(url)) as db:
        first_release.fill_postgres(db, accounts, messages)

        def rows(sql: str) -> Iterator[tuple[Any, ...]]:
            # The rows stay on the server, even where there are a million.
            with db.cursor("rows", withhold=True) as cursor:
                cursor.itersize = 10_000
                cursor.execute(sql)
                yield from cursor

        before = content(rows)
        [(size, log)] = rows(_SIZE)
        waits = dict.fromkeys(PROBES, 0.0)
        with probing(url, waits):
            seconds = await open_and_close(reactor, url)
        [(after, end)] = rows(_SIZE)
        check(rows, before, FAULTS)
    return Upgrade(seconds, size, after, int(after + end - log), waits)


_SIZE: Final = (
    "SELECT pg_database_size(current_database()), pg_current_wal_insert_lsn() - '0/0'::pg_lsn"
)


async def open_and_close(reactor: Any, url: str) -> float:
    """Open the store at `url` as a daemon does; returns how many seconds that took."""
    # Only the composition root maps a URL to a store.
    from chatd.compose.storage import compose_store_and_bus
    from chatd.config import load
    from chatd.metrics import Metrics

    settings, _ = load({"db": url}, {})
    store, _ = compose_store_and_bus(settings, reactor, Metrics())
    began = time.monotonic()
    await store.open()
    seconds = time.monotonic() - began
    await store.close()
    return seconds


def content(rows: Rows) -> dict[str, tuple[int, str]]:
    """The number of rows in each part of `CONTENT`, and their hash."""
    found = {}
    for part, sql in CONTENT.items():
        count, total = 0, hashlib.sha256()
        for row in rows(sql):
            count += 1
            values = [bytes(each) if isinstance(each, memoryview) else each for each in row]
            total.update(repr(values).encode())
        found[part] = (count, total.hexdigest())
    return found


def check(rows: Rows, before: dict[str, tuple[int, str]], faults: dict[str, str]) -> None:
    """Raise `WrongUpgrade` if the content differs from that before, or is wrong."""
    after = content(rows)
    wrong = [part for part in CONTENT if after[part] != before[part]]
    wrong += [fault for fault, sql in faults.items() if next(iter(rows(sql)), None) is not None]
    if wrong:
        raise WrongUpgrade(", ".join(wrong))


@contextmanager
def probing(url: str, waits: dict[str, float]) -> Iterator[None]:
    """Run each probe again and again, and note in `waits` how long it took at most."""
    import psycopg2

    with ExitStack() as stack:
        for name, sql in PROBES.items():
            db = stack.enter_context(closing(psycopg2.connect(url)))
            db.autocommit = True
            cursor = db.cursor()

            def probe(name: str = name, sql: str = sql, cursor: Any = cursor) -> None:
                began = time.monotonic()
                cursor.execute(sql)
                waits[name] = max(waits[name], time.monotonic() - began)

            stack.enter_context(repeatedly(probe))
        yield


@contextmanager
def repeatedly(call: Callable[[], object]) -> Iterator[None]:
    """Make a call every `PROBE_SECONDS`, in a thread."""
    stop = threading.Event()

    def run() -> None:
        while not stop.is_set():
            call()
            stop.wait(PROBE_SECONDS)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def report(upgrade: Upgrade, messages: int) -> str:
    """The result, for people."""
    lines = [
        f"{messages} messages upgraded in {upgrade.seconds:.1f} s, exactly",
        f"size before {upgrade.before >> 20} MiB, after {upgrade.after >> 20} MiB,"
        f" at most {upgrade.peak >> 20} MiB meanwhile",
    ]
    lines += [f"{name} waited up to {wait:.1f} s" for name, wait in upgrade.waits.items()]
    return "\n".join([*lines, *(f"{name}: {value}" for name, value in describe().items())])


async def run(reactor: Any, args: argparse.Namespace) -> None:
    scheme, _, path = args.db.partition(":")
    if scheme == "sqlite":
        upgrade = await upgrade_sqlite(reactor, Path(path), args.accounts, args.messages)
    else:
        upgrade = await upgrade_postgres(reactor, args.db, args.accounts, args.messages)
    print(report(upgrade, args.messages))


def main() -> None:
    """Upgrade a new database and print the result."""
    parser = argparse.ArgumentParser(description="Upgrade a database of the first release.")
    parser.add_argument("--db", required=True, help="sqlite:PATH or postgresql://...; a new one")
    parser.add_argument("--messages", type=int, default=1_000_000)
    parser.add_argument("--accounts", type=int, default=2_000)
    args = parser.parse_args()

    from twisted.internet.defer import Deferred
    from twisted.internet.task import react

    react(lambda reactor: Deferred.fromCoroutine(run(reactor, args)))


if __name__ == "__main__":
    main()
