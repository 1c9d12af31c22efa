"""Fixtures of the tests of the HTTP surface."""

import sqlite3
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from chatd.store.sqlite import file as sqlite_file
from tests.api.service import FRONTS, SERVERS, STOCK, Serve, Service, serving


@pytest.fixture(autouse=True)
def _no_waiting_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Write without syncing: durability is tested in tests/store and tests/integration."""
    tune = sqlite_file._tune

    def tune_less(db: sqlite3.Connection) -> None:
        tune(db)
        db.execute("PRAGMA synchronous = OFF")

    monkeypatch.setattr(sqlite_file, "_tune", tune_less)


@pytest.fixture(params=SERVERS)
def service(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Service]:
    """The service without rate limits, on the daemon's own HTTP server, deep on both."""
    with serving(tmp_path, request.param) as running:
        yield running


@pytest.fixture(params=FRONTS)
def either(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Service]:
    """The same on twisted.web and on the daemon's own HTTP server.

    For calls that take the fast path on the latter only.
    """
    with serving(tmp_path, request.param) as running:
        yield running


@pytest.fixture
def stock(tmp_path: Path) -> Iterator[Service]:
    """The service on twisted.web, for tests that do not depend on the server."""
    with serving(tmp_path, STOCK) as running:
        yield running


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    """Makes services with options, each with its own database."""
    with ExitStack() as stack:
        made: list[Service] = []

        def make(front: str = STOCK, **options: Any) -> Service:
            folder = tmp_path / str(len(made))
            folder.mkdir()
            made.append(stack.enter_context(serving(folder, front, **options)))
            return made[-1]

        yield make
