"""Deletion of the rows of removed messages: in parts, in the background, after failures."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from twisted.internet.defer import Deferred, succeed

from chatd.errors import StoreUnavailable
from chatd.store import removed_rows
from chatd.store.removed_rows import Deleted, RemovedRows
from tests.conftest import LoggedFailures
from tests.doubles import fired, result_of


class Rows:
    """The rows of inboxes, of which three are deleted at a time."""

    def __init__(self, rows: dict[int, int]) -> None:
        self.rows = rows
        self.calls: list[str] = []
        self.error: Exception | None = None
        self.prepared: Deferred[None] | None = None
        self.removed = RemovedRows(self.delete, prepare=self.prepare, finish=self.finish)

    def prepare(self) -> Deferred[None]:
        self.calls.append("prepare")
        return self.prepared or succeed(None)

    def finish(self) -> Deferred[None]:
        self.calls.append("finish")
        return succeed(None)

    async def delete(self, inboxes: Sequence[tuple[int, int]]) -> Deleted:
        self.calls.append(f"delete {dict(inboxes)}")
        if self.error is not None:
            raise self.error
        for user_id, seq in inboxes:
            count = min(3, self.rows[user_id], seq)
            if count:
                self.rows[user_id] -= count
                return Deleted(count, more=True)
        return Deleted(0, more=False)

    def run(self) -> int:
        return result_of(Deferred.fromCoroutine(self.removed.delete()))


def test_without_rows_nothing_is_done() -> None:
    rows = Rows({})
    assert rows.run() == 0
    rows.removed.start()
    assert rows.calls == []


def test_rows_are_deleted_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(removed_rows, "INBOXES", 2)
    rows = Rows({1: 4, 2: 1, 3: 2})
    for user_id in rows.rows:
        rows.removed.add(user_id, 9)
    assert rows.run() == 7
    assert rows.rows == {1: 0, 2: 0, 3: 0}
    first, second = "delete {1: 9, 2: 9}", "delete {3: 9}"
    assert rows.calls == ["prepare", *[first] * 4, *[second] * 2, "finish"]
    assert rows.run() == 0
    assert len(rows.calls) == 8


def test_what_is_removed_meanwhile_is_deleted_afterwards() -> None:
    rows = Rows({1: 2, 2: 2})
    rows.prepared = Deferred()
    rows.removed.add(1, 5)
    rows.removed.start()
    # Of this nobody has heard for long enough yet.
    rows.removed.add(1, 6)
    rows.removed.add(2, 6)
    rows.removed.start()
    prepared, rows.prepared = rows.prepared, None
    prepared.callback(None)
    again = ["delete {1: 6, 2: 6}"] * 2
    assert rows.calls == ["prepare", *["delete {1: 5}"] * 2, "finish", "prepare", *again, "finish"]
    assert rows.rows == {1: 0, 2: 0}


def test_after_a_failure_they_are_deleted_the_next_time(logged_failures: LoggedFailures) -> None:
    rows = Rows({1: 2})
    rows.removed.add(1, 5)
    for error in (StoreUnavailable("away", 1), ValueError("a fault")):
        rows.error = error
        rows.removed.start()
        assert rows.rows == {1: 2}
    assert len(logged_failures.flush(ValueError)) == 1
    rows.error = None
    assert rows.run() == 2


def test_nothing_is_begun_after_the_end() -> None:
    rows = Rows({1: 2})
    rows.prepared = Deferred()
    rows.removed.add(1, 5)
    rows.removed.start()
    rows.removed.stop()
    idle = Deferred.fromCoroutine(rows.removed.wait_idle())
    assert not fired(idle)
    rows.prepared.callback(None)
    assert fired(idle)
    rows.removed.start()
    assert rows.calls == ["prepare"]
