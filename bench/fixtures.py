"""Accounts with tokens, and inboxes with messages, put into a database before a server starts.

They are made through the store's own code, a few hundred at a time: no password is hashed (nobody
logs in with one here), and SQLite need not sync what a lost run would make again.

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
"""What no password fits."""

BATCH = 500


class Member(NamedTuple):
    """An account and a token of it."""

    id: int
    token: str


class Population(NamedTuple):
    """Who takes part: users receive, senders send."""

    users: list[Member]
    senders: list[Member]

    @classmethod
    def load(cls, path: Path) -> Population:
        """Read what `save` wrote."""
        document = json.loads(path.read_text("ascii"))
        return cls(*([Member(*each) for each in document[name]] for name in cls._fields))

    def save(self, path: Path) -> None:
        """Write to a file."""
        path.write_text(json.dumps(self._asdict()), "ascii")


def populate(db: str, path: Path, *, users: int, senders: int, messages: Sequence[int]) -> None:
    """Populate the database in a process of its own (a reactor starts once), and save who is there.

    `messages` says how many the first users have each; the last number is that of all others.
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


def spread(messages: Sequence[int], users: int) -> Iterator[tuple[int, int]]:
    """For each user the number of messages: as `messages` says, its last number again and again."""
    for user in range(users):
        yield user, messages[min(user, len(messages) - 1)]


async def _populate(reactor: Any, asked: argparse.Namespace) -> None:
    # The composition root is the only place that knows which store a URL means.
    from chatd.compose import compose_store_and_bus
    from chatd.config import load
    from chatd.interfaces import IStore
    from chatd.metrics import Metrics

    settings, _ = load({"db": asked.db}, {})
    store: IStore = compose_store_and_bus(settings, reactor, Metrics())[0]
    await store.open()
    try:
        await _relax(store)
        name = secrets.token_hex(4)
        population = Population(
            await _members(store, f"u{name}", asked.users),
            await _members(store, f"s{name}", asked.senders),
        )
        await _messages(store, population, [int(count) for count in asked.messages.split(",")])
    finally:
        await store.close()
    population.save(asked.output)


async def _relax(store: Any) -> None:
    from chatd.store.sqlite.store import SqliteStore

    if isinstance(store, SqliteStore):
        await store._write(lambda db: db.execute("PRAGMA synchronous = OFF").close())


async def _members(store: Any, prefix: str, count: int) -> list[Member]:
    from twisted.internet.defer import Deferred, gatherResults

    async def member(number: int) -> Member:
        name = f"{prefix}-{number}"
        account = await store.add_account(name, f"{name}@example.org", NO_PASSWORD)
        token = f"chatd_{secrets.token_urlsafe(32)}"
        await store.add_token(account.id, hashlib.sha256(token.encode("ascii")).digest())
        return Member(account.id, token)

    members: list[Member] = []
    while len(members) < count:
        numbers = range(len(members), min(len(members) + BATCH, count))
        members += await gatherResults([Deferred.fromCoroutine(member(n)) for n in numbers])
    return members


async def _messages(store: Any, population: Population, messages: Sequence[int]) -> None:
    from chatd.model import Draft

    users, senders = population
    batch: list[Draft] = []
    for user, count in spread(messages, len(users)):
        for number in range(count):
            sender = senders[number % len(senders)].id
            batch.append(Draft(sender, users[user].id, f"message {number} of the beginning"))
            if len(batch) == BATCH:
                await store.append(batch)
                batch = []
    if batch:
        await store.append(batch)


def main() -> None:
    """Populate a database and write down who is there."""
    parser = argparse.ArgumentParser(description="Put accounts and messages into a database.")
    parser.add_argument("--db", required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--users", type=int, required=True)
    parser.add_argument("--senders", type=int, required=True)
    parser.add_argument("--messages", default="0", help="for the first user, the second ... all")
    asked = parser.parse_args()

    from twisted.internet.defer import Deferred
    from twisted.internet.task import react

    react(lambda reactor: Deferred.fromCoroutine(_populate(reactor, asked)))


if __name__ == "__main__":
    main()
