"""Upgrades from the first release: nothing is lost, and what is added is complete.

With a million messages, and measured: `python -m bench.upgrade`.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet import reactor

from bench.first_release import fill_sqlite
from bench.upgrade import (
    FAULTS,
    PROBES,
    SQLITE_FAULTS,
    WrongUpgrade,
    check,
    content,
    report,
    upgrade_postgres,
    upgrade_sqlite,
)
from tests.postgres_server import Databases

ACCOUNTS, MESSAGES = 40, 4000


@ensureDeferred
async def test_a_sqlite_database_of_the_first_release_is_upgraded_exactly(tmp_path: Path) -> None:
    path = tmp_path / "chatd.db"
    upgrade = await upgrade_sqlite(reactor, path, ACCOUNTS, MESSAGES)
    # The copy that is made first.
    assert upgrade.peak >= 2 * upgrade.before
    assert len(list(tmp_path.glob("*.backup"))) == 1
    assert "4000 messages upgraded in " in report(upgrade, MESSAGES)


@ensureDeferred
async def test_a_postgres_database_of_the_first_release_is_upgraded_exactly(
    postgres: Databases,
) -> None:
    database = postgres.create()
    upgrade = await upgrade_postgres(reactor, postgres.url(database), ACCOUNTS, MESSAGES)
    assert upgrade.waits.keys() == PROBES.keys()
    assert min(upgrade.waits.values()) > 0
    assert "a send waited up to " in report(upgrade, MESSAGES)
    postgres.drop(database)


@ensureDeferred
async def test_damage_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "chatd.db"
    await upgrade_sqlite(reactor, path, ACCOUNTS, MESSAGES)
    faults = {**FAULTS, **SQLITE_FAULTS}
    with closing(sqlite3.connect(path)) as db:
        before = content(db.execute)
        for damage, complaint in (
            ("UPDATE message SET text = 'x' WHERE received_by = 7 AND seq = 9", "messages"),
            ("DELETE FROM token WHERE user_id = 1", "tokens"),
            ("DELETE FROM contact WHERE received_by = 3", "missing contacts"),
            ("INSERT INTO contact VALUES (9, 99)", "contacts without messages"),
            ("DELETE FROM conversation WHERE seq = 5", "messages that are not indexed"),
            ("UPDATE inbox SET text_bytes = 1 WHERE user_id = 5", "inboxes with other bytes"),
            ("UPDATE token SET scopes = 1 WHERE user_id = 2", "limited tokens"),
        ):
            check(db.execute, before, faults)
            db.execute(damage)
            with pytest.raises(WrongUpgrade, match=complaint):
                check(db.execute, before, faults)
            db.rollback()


def test_inboxes_are_filled_by_several_senders(tmp_path: Path) -> None:
    path = tmp_path / "chatd.db"
    fill_sqlite(str(path), ACCOUNTS, MESSAGES)
    with closing(sqlite3.connect(path)) as db:
        [[fewest]] = db.execute(
            "SELECT min(senders) FROM (SELECT count(DISTINCT sent_by) AS senders"
            " FROM message GROUP BY received_by)"
        )
    assert fewest == 20
