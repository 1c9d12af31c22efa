"""A database that is set back to an earlier state (contract: a cursor proves its history)."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

import pytest

from tests.api.service import CHATS, FRONTS, Service, User, serving, texts

LINK = re.compile("<([^>]*)>")


class SetBack:
    """A service whose database file is copied, and later put back."""

    def __init__(self, folder: Path, front: str) -> None:
        self.folder = folder
        self.front = front
        self.starts = 0

    @contextmanager
    def serving(self) -> Iterator[Service]:
        """The service on the file as it is; time goes on from start to start."""
        with serving(self.folder, self.front) as service:
            self.starts += 1
            service.advance(3600 * self.starts)
            yield service

    def copy(self) -> None:
        """Copy the file of the service that is not running."""
        shutil.copy(self.folder / "chatd.db", self.folder / "copy.db")

    def put_back(self) -> None:
        """Replace it by the copy."""
        shutil.copy(self.folder / "copy.db", self.folder / "chatd.db")


@pytest.fixture(params=FRONTS)
def database(request: pytest.FixtureRequest, tmp_path: Path) -> SetBack:
    return SetBack(tmp_path, request.param)


def again(service: Service, user: User) -> User:
    """A user of a service that was started before."""
    return User(service, user.id, user.name, user.bearer.removeprefix("Bearer "))


def collect(user: User, query: str = "") -> list[str]:
    """The cursors after each message of the inbox, and at its beginning."""
    found = [user.poll(f"?since=0&limit=1{query}")["meta"]["cursor"]]
    while user.poll(f"?since={found[-1]}")["messages"]:
        found.append(user.poll(f"?since={found[-1]}&limit=1{query}")["meta"]["cursor"])
    return found


def test_every_way_of_reading_notices_it(database: SetBack) -> None:
    with database.serving() as service:
        first, second = service.new_user("ann"), service.new_user("bob")
        for number in range(3):
            first.send(second, f"kept {number}")
    database.copy()
    with database.serving() as service:
        ann, bob = again(service, first), again(service, second)
        for number in range(6):
            ann.send(bob, f"lost {number}")
        cursors = collect(bob)
        pinned = LINK.findall(bob.get(f"{CHATS}?limit=2").header("Link") or "")[0]
        old = [cursor.rpartition("-")[0] for cursor in cursors]
    assert len(set(cursors)) == 9
    database.put_back()
    with database.serving() as service:
        ann, bob = again(service, first), again(service, second)
        # At first there are fewer messages than before, then more.
        for count in (0, 2, 7):
            for number in range(count):
                ann.send(bob, f"new {number}")
            for seq, cursor in enumerate(cursors, 1):
                queries = (f"?since={cursor}", f"?since={cursor}&wait=30", f"?at={cursor}")
                if seq <= 3:
                    for query in queries:
                        response = bob.start_and_settle("GET", CHATS + query)
                        assert response.held or response.response.status == 200
                    continue
                for query in (*queries, f"?since={cursor}&changes=true", f"?at={cursor}&page=2"):
                    bob.get(CHATS + query).problem(410, "cursor_epoch")
                stream = {"Accept": "application/x-ndjson"}
                bob.get(f"{CHATS}?since={cursor}", headers=stream).problem(410, "cursor_epoch")
                events = {"Accept": "text/event-stream", "Last-Event-ID": cursor}
                bob.get(f"{CHATS}?since=0", headers=events).problem(410, "cursor_epoch")
            bob.get(pinned).problem(410, "cursor_epoch")
        # Cursors of version 1 stay valid: they can only tell that they are past the end.
        assert texts(bob.poll(f"?since={old[3]}"))[0] == "new 1"
        assert texts(bob.poll(f"?since={cursors[2]}"))[0] == "new 0"
        assert service.system.notifier.held <= 8


def test_no_changes_are_skipped(database: SetBack) -> None:
    with database.serving() as service:
        first, second = service.new_user("ann"), service.new_user("bob")
        first.send(second, "kept")
        start = first.poll("?since=0&changes=true")["meta"]["cursor"]
    database.copy()
    with database.serving() as service:
        ann, bob = again(service, first), again(service, second)
        for number in range(5):
            ann.send(bob, f"lost {number}")
        cursor = ann.poll(f"?since={start}&changes=true")["meta"]["cursor"]
    database.put_back()
    with database.serving() as service:
        ann, bob = again(service, first), again(service, second)
        ann.get(f"{CHATS}?since={cursor}&changes=true&wait=30").problem(410, "cursor_epoch")
        for number in range(7):
            ann.send(bob, f"new {number}")
        for since in (start, cursor):
            changes = ann.poll(f"?since={quote(since)}&changes=true")["changes"]
            assert [each["message"]["message"] for each in changes] == [
                f"new {number}" for number in range(7)
            ]


def test_a_cursor_of_another_inbox_is_refused_also_within_the_callers(
    database: SetBack,
) -> None:
    with database.serving() as service:
        ann, bob, cat = (service.new_user() for _ in range(3))
        for _ in range(3):
            service.advance(1)
            cat.send(ann)
            service.advance(1)
            cat.send(bob)
        for cursor in collect(ann):
            bob.get(f"{CHATS}?since={cursor}&wait=30").problem(410, "cursor_epoch")
            ann.poll(f"?since={cursor}")
