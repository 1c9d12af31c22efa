"""How the composition root chooses PostgreSQL."""

from __future__ import annotations

import sys

import pytest

from chatd.bus.postgres import PostgresBus
from chatd.config import ConfigError, load
from chatd.process.service import ChatService
from chatd.store.postgres.store import PostgresStore
from chatd.tap import build, is_postgres


@pytest.mark.parametrize(
    ("db", "expected"),
    [
        ("postgresql://h/d", True),
        ("postgres:///d", True),
        ("host=h dbname=d", True),
        ("dbname = d", True),
        ("sqlite:chatd.db", False),
        ("sqlite:a=b.db", False),
        ("postgresql", False),
        ("mysql://h/d", False),
    ],
)
def test_what_names_a_postgresql(db: str, expected: bool) -> None:
    assert is_postgres(db) is expected


def test_both_seams_are_on_postgresql() -> None:
    from twisted.internet import reactor

    given = {"db": "postgresql://u:s3cret@h/d", "listen-db": "host=direct dbname=d"}
    service = build(load(given, {})[0], reactor)
    assert isinstance(service, ChatService)
    assert isinstance(service._parts.store, PostgresStore)
    assert isinstance(service._parts.bus, PostgresBus)
    assert service._parts.store.location == "postgresql://u@h/d"
    service._parts.passwords.stop()


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ({"db": "postgresql://u:s3cret@h/d?nonsense=1"}, "^db: neither"),
        ({"db": "postgresql:///d", "listen-db": "s3cret"}, "^listen-db: neither"),
        ({"db": "postgresql:///d", "listen-db": "s3cret", "workers": 2}, "^listen-db: neither"),
        ({"db": "mysql://u:s3cret@h/d"}, "^db: neither sqlite:PATH nor postgresql://"),
    ],
)
def test_what_cannot_be_read_is_named_and_not_repeated(
    given: dict[str, str], complaint: str
) -> None:
    from twisted.internet import reactor

    with pytest.raises(ConfigError, match=complaint) as caught:
        build(load(given, {})[0], reactor)
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize("missing", ["txpostgres", "psycopg2"])
@pytest.mark.parametrize("workers", [1, 2])
def test_without_the_extra_it_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, missing: str, workers: int
) -> None:
    from twisted.internet import reactor

    for name in tuple(sys.modules):
        if name.startswith(("chatd.postgres", "chatd.bus.postgres", "chatd.store.postgres.store")):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(ConfigError, match=r"clone .*pip install -e '\.\[postgres\]'"):
        build(load({"db": "postgresql:///d", "workers": workers}, {})[0], reactor)
