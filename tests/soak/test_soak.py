"""A soak of some seconds, and one whose database is tampered with; the figures of both."""

from __future__ import annotations

import random
import sqlite3
import time
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread

from tests.history import Event, Seen, Sent, Stored
from tests.soak.deployment import Deployment, Node, deployed, on_sqlite
from tests.soak.faults import Faults
from tests.soak.rounds import Round, figures_of
from tests.soak.soak import Settings, Soak

SECONDS = 20.0


@ensureDeferred
async def test_a_short_soak_finds_nothing(tmp_path: Path) -> None:
    from twisted.internet import reactor

    lines: list[str] = []
    settings = Settings(tmp_path, seconds=2, sample_seconds=0.5, rate=80, users=2)
    soak = Soak(reactor, settings, on_sqlite(tmp_path, forked=True)[:1], lines.append)
    await soak.run()
    assert soak.problems == []
    figures = soak.figures["sqlite"]
    assert figures["acknowledged"] > 0
    assert figures["deliveries"] == 2 * figures["stored"]
    assert soak.faults["sqlite"].total() > 0
    assert "lost 0, doubled 0" in soak.summary()
    assert lines[-1].endswith("0 problems")
    assert list(tmp_path.glob("history-*")) == []


class Tampering(Faults):
    """Changes the newest message of each inbox while the daemon is down."""

    def __init__(self, reactor: Any, deployment: Deployment, path: Path) -> None:
        super().__init__(reactor, deployment, random.Random(0))
        self._node: Node = deployment.nodes[0]
        self._path = path

    async def once(self) -> None:
        await deferToThread(self._tamper)

    def _tamper(self) -> None:
        self._node.kill()
        with closing(sqlite3.connect(self._path)) as db:
            db.execute(
                "UPDATE message SET text = text || '!' WHERE seq ="
                " (SELECT last_seq FROM inbox WHERE user_id = received_by)"
            )
            db.commit()
        self._node.start()


class Broken(Faults):
    """Cannot do any harm."""

    async def once(self) -> None:
        raise LookupError("no such process")


@ensureDeferred
async def test_what_goes_wrong_is_found(tmp_path: Path) -> None:
    """A round that is broken off leaves no client, and one whose database is changed is wrong."""
    from twisted.internet import reactor

    clock: Any = reactor
    [made, _] = on_sqlite(tmp_path, forked=True)
    dice = random.Random(0)
    async with deployed(clock, made, dice):
        path = tmp_path / "broken.jsonl"
        broken = Broken(clock, made, dice)
        with pytest.raises(LookupError):
            await Round(clock, made, broken, dice, path, rate=80, users=1).run(1)
        # What was recorded before is there.
        assert path.stat().st_size > 0
        proxy = made.nodes[0].proxy
        assert proxy is not None
        ends = time.monotonic() + SECONDS
        while proxy.open:
            assert time.monotonic() < ends
            await deferLater(clock, 0.01)

        path = tmp_path / "changed.jsonl"
        tampering = Tampering(clock, made, tmp_path / "sqlite" / "data" / "chatd.db")
        _, problems = await Round(clock, made, tampering, dice, path, rate=80, users=1).run(1)
    assert {"lost", "unsent"} <= {problem.split(": ")[1] for problem in problems}


def test_events_are_counted() -> None:
    message = Stored(1, 1, "a")
    events: list[Event] = [
        Sent(0, 1, 1, 2, "a", "acknowledged", 1),
        Sent(0, 1, 1, 2, "b", "unknown"),
        Seen(0, 1, 2, 0, [message], reader="phone"),
        Seen(0, 1, 2, 0, [message], count=1),
    ]
    assert figures_of(events) == Counter(
        events=4, sends=2, acknowledged=1, unknown=1, deliveries=1, pages=1
    )


def test_a_daemon_that_is_not_restarted_is_never_ended(tmp_path: Path) -> None:
    [restarted, steady] = on_sqlite(tmp_path)
    names = [
        {name for name, _ in Faults(None, each, random.Random(0)).possible()}
        for each in (restarted, steady)
    ]
    assert names[0] - names[1] == {"kill -9", "SIGTERM"}
    assert names[1] == {"SIGSTOP", "links cut", "cut at any byte"}
