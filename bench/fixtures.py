"""Fills a database with accounts, tokens and messages before a server is started.

Uses the code of the store, a few hundred entries at a time. No passwords are hashed, since nobody
logs in, and SQLite does not sync, since a run that is lost can be repeated.

    python -m bench.fixtures --db sqlite:bench.db --users 200 --senders 32 --messages 10
"""

from __future__ import annotations

import argparse
import hashlib
import json
import secrets
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

NO_PASSWORD = "!"
"""A password hash that no password matches."""

BATCH = 500


class Account(NamedTuple):
    """An account with a token."""

    id: int
    token: str


class Fixtures(NamedTuple):
    """The accounts of a benchmark: users receive messages, senders send them."""

    users: list[Account]
    senders: list[Account]

    @classmethod
    def load(cls, path: Path) -> Fixtures:
        """Load what `save` has written."""
        document = json.loads(path.read_text("ascii"))
        return cls(*([Account(*each) for each in document[name]] for name in cls._fields))

    def save(self, path: Path) -> None:
        """Write to a file."""
        path.write_text(json.dumps(self._asdict()), "ascii")


def populate(db: str, path: Path, *, users: int, senders: int, messages: Sequence[int]) -> None:
    """Populate the database in a separate process, since a reactor runs only once.

    The accounts are saved to `path`. `messages` are the numbers of messages of the first users; the
    last number holds for all others.
    """
    counts = ",".join(map(str, messages))
    subprocess.run(
        [
            *(sys.executable, "-m", __name__, "--db", db, "--output", path),
            *("--users", str(users), "--senders", str(senders), "--messages", counts),
        ],
        check=True,
        timeout=600,
    )


def message_counts(messages: Sequence[int], users: int) -> Iterator[tuple[int, int]]:
    """Users with their number of messages; the last number of `messages` holds for all others."""
    for user in range(users):
        yield user, messages[min(user, len(messages) - 1)]


async def populate_database(reactor: Any, args: argparse.Namespace) -> None:
    # Only the composition root maps a URL to a store.
    from chatd.compose.storage import compose_store_and_bus
    from chatd.config import load
    from chatd.interfaces import IStore
    from chatd.metrics import Metrics

    settings, _ = load({"db": args.db}, {})
    store: IStore = compose_store_and_bus(settings, reactor, Metrics())[0]
    await store.open()
    try:
        await _relax(store)
        name = secrets.token_hex(4)
        fixtures = Fixtures(
            await _add_accounts(store, f"u{name}", args.users),
            await _add_accounts(store, f"s{name}", args.senders),
        )
        await _messages(store, fixtures, [int(count) for count in args.messages.split(",")])
    finally:
        await store.close()
    fixtures.save(args.output)


async def _relax(store: Any) -> None:
    from chatd.store.sqlite.store import SqliteStore

    if isinstance(store, SqliteStore):
        await store._write(lambda db: db.execute("PRAGMA synchronous = OFF").close())


async def _add_accounts(store: Any, prefix: str, count: int) -> list[Account]:
    from twisted.internet.defer import Deferred, gatherResults

    async def add_account(number: int) -> Account:
        name = f"{prefix}-{number}"
        account = await store.add_account(name, f"{name}@example.org", NO_PASSWORD)
        token = f"chatd_{secrets.token_urlsafe(32)}"
        await store.add_token(account.id, hashlib.sha256(token.encode("ascii")).digest())
        return Account(account.id, token)

    members: list[Account] = []
    while len(members) < count:
        numbers = range(len(members), min(len(members) + BATCH, count))
        members += await gatherResults([Deferred.fromCoroutine(add_account(n)) for n in numbers])
    return members


async def _messages(store: Any, fixtures: Fixtures, messages: Sequence[int]) -> None:
    from chatd.model import Draft

    users, senders = fixtures
    batch: list[Draft] = []
    for user, count in message_counts(messages, len(users)):
        for number in range(count):
            sender = senders[number % len(senders)].id
            batch.append(Draft(sender, users[user].id, f"earlier message {number}"))
            if len(batch) == BATCH:
                await store.append(batch)
                batch = []
    if batch:
        await store.append(batch)


def main() -> None:
    """Populate a database and save its accounts."""
    parser = argparse.ArgumentParser(description="Put accounts and messages into a database.")
    parser.add_argument("--db", required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--users", type=int, required=True)
    parser.add_argument("--senders", type=int, required=True)
    parser.add_argument(
        "--messages", default="0", help="number for the first user, the second ..., all others"
    )
    args = parser.parse_args()

    from twisted.internet.defer import Deferred
    from twisted.internet.task import react

    react(lambda reactor: Deferred.fromCoroutine(populate_database(reactor, args)))


if __name__ == "__main__":
    main()
