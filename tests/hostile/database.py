"""The database of a daemon to be attacked, made before it starts: registering takes long."""

from __future__ import annotations

import secrets
import sqlite3
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Final, NamedTuple

from twisted.internet.task import Clock

from chatd.domain.accounts import TOKEN_PREFIX, token_digest
from chatd.domain.passwords import owasp_hasher
from chatd.model import Draft
from chatd.store.sqlite.store import SqliteStore
from chatd.store.sqlite.transactions import transaction
from tests.daemon import PASSWORD
from tests.doubles import InlineExecutor, result_of
from tests.hostile.attacks import LARGE, WIDE, WIDE_MESSAGES, Attack

LARGE_MESSAGES: Final = 100
STEP: Final = 1000


class Accounts(NamedTuple):
    """Tokens by the id of the user: of the attacker, and of an innocent client."""

    attacker: dict[int, str]
    innocent: tuple[int, str]


def fill(path: Path, attack: Attack) -> Accounts:
    """Make a database with what an attack needs.

    The first account has a hundred wide messages in its inbox, and the second one the short ones.
    """
    store = SqliteStore(
        str(path),
        clock=Clock(),
        now=lambda: time.time_ns() // 1000,
        worker=lambda _: InlineExecutor(),
    )
    result_of(store.open())
    # Nothing is lost that could not be made again.
    store._write_db.execute("PRAGMA synchronous = OFF")

    def add(name: str, password_hash: str) -> tuple[int, str]:
        account = result_of(store.add_account(name, f"{name}@example.org", password_hash))
        token = TOKEN_PREFIX + secrets.token_urlsafe(32)
        result_of(store.add_token(account.id, token_digest(token.encode("ascii"))))
        return account.id, token

    attacker = dict(add(f"attacker{number}", "nobody logs in") for number in range(attack.accounts))
    innocent = add("innocent", owasp_hasher().hash(PASSWORD))
    first, second = next(iter(attacker)), list(attacker)[min(1, attack.accounts - 1)]
    for user in attacker:
        for begin in range(0, attack.wide_messages, STEP):
            drafts = [Draft(first, user, WIDE)] * min(STEP, attack.wide_messages - begin)
            result_of(store.append(drafts))
    result_of(store.append([Draft(first, first, WIDE)] * WIDE_MESSAGES))
    for begin in range(0, attack.messages, STEP):
        drafts = [Draft(first, second, f"message {begin + number}") for number in range(STEP)]
        result_of(store.append(drafts))
    if attack.large:
        for user, peer in zip(attacker, [*list(attacker)[1:], first], strict=True):
            result_of(store.append([Draft(user, peer, LARGE)] * LARGE_MESSAGES))
            result_of(store.append([Draft(user, other, LARGE) for other in attacker]))
    _add_tokens(store._write_db, attacker, attack.listed_tokens)
    _add_blocks(store._write_db, attacker, attack.listed_blocks)
    result_of(store.close())
    return Accounts(attacker, innocent)


def _add_tokens(db: sqlite3.Connection, owners: Iterable[int], count: int) -> None:
    """So many more tokens of each, with the label that takes most bytes in JSON."""
    rows = [
        (secrets.token_bytes(32), owner, "\x01" * 64, time.time_ns() // 1000)
        for owner in owners
        for _ in range(count)
    ]
    with transaction(db):
        db.executemany(
            "INSERT INTO token (digest, user_id, label, created_at) VALUES (?, ?, ?, ?)", rows
        )


def _add_blocks(db: sqlite3.Connection, owners: Iterable[int], count: int) -> None:
    """So many accounts that each of the owners has blocked."""
    with transaction(db):
        for number in range(count):
            # Their order is not that of their ids.
            name = f"{secrets.token_hex(8)}-with-long-name-{number}"[:32]
            [added] = db.execute(
                "INSERT INTO account (username, username_folded, date_joined) VALUES (?, ?, 1)"
                " RETURNING id",
                (name, name),
            ).fetchall()
            db.executemany("INSERT INTO block VALUES (?, ?)", [(each, *added) for each in owners])
