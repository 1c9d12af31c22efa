"""SQLite in a simulation: one daemon, its threads, and what a crash leaves of its files."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, cast

from twisted.internet.task import Clock

from chatd.config import load
from chatd.metrics import Metrics
from chatd.store.sqlite.store import SqliteStore
from tests.doubles import ControlledBus, Now, SteppedExecutor
from tests.history import Stored
from tests.simulation.database import Named
from tests.simulation.disk import Disk, Files, torn
from tests.simulation.network import Network
from tests.simulation.node import Node
from tests.simulation.tape import Tape


class SqliteNode(Node):
    """A daemon with a file."""

    def __init__(self, name: str, disk: Disk, network: Network, now: Now, seconds: float) -> None:
        clock = Clock()
        clock.rightNow = seconds
        threads: dict[str, SteppedExecutor] = {}
        self.store = SqliteStore(
            str(disk.mount()),
            clock=clock,
            now=now,
            worker=lambda name: threads.setdefault(name, SteppedExecutor()),
        )
        self.bus = ControlledBus()
        super().__init__(
            name,
            load({}, {})[0],
            self.store,
            self.bus,
            clock=clock,
            now=now,
            network=network,
            metrics=Metrics(),
            threads=threads,
        )

    @property
    def writer(self) -> SteppedExecutor:
        """The thread that writes."""
        return self.threads["writer"]


class SqliteDatabase:
    """A file, its write-ahead log, and the daemon that has it."""

    max_nodes = 1
    clients: Sequence[tuple[type[Any], int]] = ()

    def __init__(
        self, folder: Path, tape: Tape, network: Network, now: Now, reached: Counter[str]
    ) -> None:
        self._disk = Disk(folder)
        self._tape = tape
        self._network = network
        self._now = now
        self._reached = reached
        self._copy: Files | None = None
        self._left: Files | None = None
        self._disk_is_full = False
        self._node: SqliteNode | None = None

    def running(self) -> AbstractContextManager[object]:
        return nullcontext()

    def new_node(self, name: str, seconds: float) -> Node:
        self._disk_is_full = False
        self._node = SqliteNode(name, self._disk, self._network, self._now, seconds)
        return self._node

    def actions(self) -> list[Named]:
        if self._node is not None and self._node.bus.held:
            return [("wake", self._node.bus.release)]
        return []

    def faults(self, nodes: list[Node]) -> list[Named]:
        if not nodes or nodes[0].is_stopping:
            return []
        return [
            ("hold wake-ups", self._hold),
            ("disk full or not", lambda: self._set_disk_full(not self._disk_is_full)),
            ("checkpoint", lambda: self._checkpoint(self._tape.choice(("RESTART", "TRUNCATE")))),
        ]

    def _hold(self) -> None:
        assert self._node is not None
        self._node.bus.hold = not self._node.bus.hold

    def _set_disk_full(self, full: bool) -> None:
        """Whether the database cannot grow."""
        assert self._node is not None
        self._disk_is_full = full
        db = self._node.store._write_db
        (pages,) = db.execute("PRAGMA page_count").fetchone()
        db.execute(f"PRAGMA max_page_count = {pages if full else 1 << 30}")

    def _checkpoint(self, kind: str) -> None:
        """What is in the log is written to the database, in which it is found from then on."""
        assert self._node is not None
        self._node.store._write_db.execute(f"PRAGMA wal_checkpoint({kind})")

    def is_busy(self, node: Node) -> bool:
        return bool(cast(SqliteNode, node).bus.held)

    def tells_all(self, node: Node) -> bool:
        bus = cast(SqliteNode, node).bus
        return not bus.hold and not bus.held

    def killed(self, node: Node) -> None:
        killed = cast(SqliteNode, node)
        if self._left is None:
            self._left = self._torn(killed)
        store: Any = killed.store
        # Closing merges the log into the database, but nobody reads that one any more.
        for db in (store._read_db, store._checkpoint_db, store._write_db):
            db.close()
        if store._lock is not None:
            store._files.close()
            store._lock.release()
        self._leave(self._left)
        self._left = None

    def _leave(self, left: Files) -> None:
        self._disk.leave(left)
        self._disk.remove()
        self._node = None

    def _torn(self, node: SqliteNode) -> Files:
        """What a crash leaves that may happen in the middle of a transaction or a checkpoint."""
        writer = node.threads.get("writer")
        before = self._disk.read()
        if writer is None:
            return before
        if writer.done:
            self._reached["crash after commit, before the answer"] += 1
        if writer.pending and not self._tape.one_in(3):
            writer.work()
            after = self._disk.read()
            left = torn(before, after, self._tape)
            if left == after != before:
                self._reached["crash in a transaction: committed"] += 1
            elif after != before:
                self._reached["crash in a transaction: torn"] += 1
            return left
        if not node.is_stopping and self._tape.one_in(3):
            self._checkpoint("PASSIVE")
            after = self._disk.read()
            left = torn(before, after, self._tape)
            self._reached["crash in a checkpoint"] += left != before
            return left
        return before

    def ended(self, node: Node) -> None:
        self._leave(self._disk.read())

    def copy(self) -> bool:
        self._copy = self._disk.read()
        return True

    def put_back(self, nodes: list[Node]) -> list[Node]:
        if nodes:
            self._left = self._copy
        else:
            assert self._copy is not None
            self._disk.leave(self._copy)
        return nodes

    def mend(self, nodes: list[Node]) -> None:
        if self._node is None:
            return
        bus = self._node.bus
        bus.hold = False
        while bus.held:
            bus.release()
        if not self._node.is_stopping:
            self._set_disk_full(False)

    def inboxes(self) -> dict[int, list[Stored]]:
        rows = self._rows(
            "SELECT received_by, seq, sent_by, text FROM message ORDER BY received_by, seq"
        )
        found: dict[int, list[Stored]] = {}
        for user_id, *message in rows:
            found.setdefault(user_id, []).append(Stored(*message))
        return found

    def ends(self) -> Mapping[int, int]:
        return dict(self._rows("SELECT user_id, last_seq FROM inbox"))

    def times_going_back(self) -> list[str]:
        rows = self._rows(
            """
            SELECT later.received_by, later.seq FROM message AS earlier JOIN message AS later
            ON later.received_by = earlier.received_by AND later.seq = earlier.seq + 1
            WHERE later.sent_at < earlier.sent_at
            """
        )
        return [f"message {seq} of user {user_id} is older than the last" for user_id, seq in rows]

    def _rows(self, sql: str) -> list[Any]:
        assert self._node is not None
        return self._node.store._read_db.execute(sql).fetchall()

    def close(self) -> None:
        pass
