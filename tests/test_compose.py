"""How the daemon is put together from its settings."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import pytest
from twisted.internet.testing import MemoryReactorClock

from chatd.bus.nats import NatsBus
from chatd.bus.postgres import PostgresBus
from chatd.compose import service as composed_service
from chatd.compose import storage
from chatd.compose.databases import is_postgres
from chatd.compose.service import compose_service
from chatd.config import ConfigError, load
from chatd.process.service import ChatService
from chatd.store.postgres.store import PostgresStore
from tests.doubles import InlineExecutor


class Reactor(MemoryReactorClock):
    """A reactor in memory that threads may call."""

    def callFromThread(self, call: Callable[..., object], *args: object) -> None:
        raise NotImplementedError


@pytest.fixture(autouse=True)
def _no_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (composed_service, storage):
        monkeypatch.setattr(module, "ThreadPool", lambda *_: InlineExecutor())


def build(**changes: Any) -> ChatService:
    """The daemon with the default settings but for some."""
    service = compose_service(attrs.evolve(load({}, {})[0], **changes), Reactor())  # type: ignore[no-untyped-call]
    assert isinstance(service, ChatService)
    return service


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
def test_postgresql_urls_are_recognized(db: str, expected: bool) -> None:
    assert is_postgres(db) is expected


def test_store_and_bus_are_those_of_postgresql() -> None:
    from twisted.internet import reactor

    given = {"db": "postgresql://u:s3cret@h/d", "listen-db": "host=direct dbname=d"}
    service = compose_service(load(given, {})[0], reactor)
    assert isinstance(service, ChatService)
    assert isinstance(service.components.store, PostgresStore)
    assert isinstance(service.components.bus, PostgresBus)
    assert service.components.store.location == "postgresql://u@h/d"
    assert service.components.store.pool.on_recovered == service.components.bus.reconnect_soon
    service.components.passwords.stop()


def test_the_bus_may_be_nats() -> None:
    from twisted.internet import reactor

    given = {"db": "postgresql://h/d", "bus": "nats://u:s3cret@a:1,b"}
    service = compose_service(load(given, {})[0], reactor)
    assert isinstance(service, ChatService)
    assert isinstance(service.components.bus, NatsBus)
    metrics = service.components.metrics.render().decode()
    for name in ("lag_seconds_count", "reconnects_total", "gaps_total", "peers", "subscriptions"):
        assert f"chatd_bus_{name} 0.0" in metrics
    service.components.passwords.stop()


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ({"db": "postgresql://u:s3cret@h/d?nonsense=1"}, "^db: neither"),
        ({"db": "postgresql:///d", "listen-db": "s3cret"}, "^listen-db: neither"),
        ({"db": "postgresql:///d", "listen-db": "s3cret", "workers": 2}, "^listen-db: neither"),
        ({"db": "mysql://u:s3cret@h/d"}, "^db: neither sqlite:PATH nor postgresql://"),
        ({"bus": "nats://s3cret@a"}, "^bus: it needs PostgreSQL"),
        ({"db": "postgresql:///d", "bus": "amqp://u:s3cret@a"}, "^bus: not nats://HOST"),
        ({"db": "postgresql:///d", "bus": "nats://u:s3cret@a:x"}, "^bus: one of the servers"),
        ({"db": "postgresql:///d", "bus": "nats://u:s3cret@", "workers": 2}, "^bus: "),
        (
            {"db": "postgresql:///d", "bus": "nats://s3cret@a", "listen-db": "host=a"},
            "^listen-db: nothing listens",
        ),
    ],
)
def test_invalid_urls_are_reported_without_their_password(
    given: dict[str, str], complaint: str
) -> None:
    from twisted.internet import reactor

    with pytest.raises(ConfigError, match=complaint) as caught:
        compose_service(load(given, {})[0], reactor)
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
        compose_service(load({"db": "postgresql:///d", "workers": workers}, {})[0], reactor)


@pytest.mark.parametrize(
    ("changes", "culprit"),
    [
        ({"workers": 2}, "workers: "),
        ({"db": "postgresql://u:hidden@h/d?no=1"}, "db: neither a PostgreSQL URL nor"),
        ({"db": "postgres://u:hidden@h:1,2/d?no=1"}, "db: "),
        ({"db": "mysql://u:hidden@h/d"}, "db: "),
        ({"db": "host=h,i port=1,2,3 password=hidden"}, "db: "),
        ({"db": "sqlite:"}, "db: "),
        ({"db": "hidden"}, "db: "),
        ({"listen_db": "postgresql://u:hidden@h/d"}, "listen-db: "),
        ({"listen": ("nonsense",)}, "listen: 'nonsense' is not an endpoint"),
        ({"listen": ("tcp:1", "tcp:port")}, "listen: 'tcp:port'"),
        ({"listen": ("tcp:",)}, "listen: "),
        ({"listen": ("",)}, "listen: "),
        ({"listen": ("ssl:1:privateKey=/nonexistent",)}, "listen: "),
        ({"admin": "nonsense:1"}, "admin: 'nonsense:1' is not an endpoint"),
        ({"listen": ("postgresql://u:hidden@h/d",)}, "listen: 'postgresql://u:...@h/d' is not"),
    ],
)
def test_settings_that_cannot_work_are_reported_in_one_line(
    changes: dict[str, Any], culprit: str
) -> None:
    with pytest.raises(ConfigError) as wrong:
        build(**changes)
    [line] = str(wrong.value).splitlines()
    assert line.startswith(culprit)
    assert "hidden" not in line


def test_components_get_their_settings() -> None:
    service = build(
        listen=("tcp:0", "tcp:1"),
        admin="tcp:2",
        max_message_bytes=100_000,
        max_polls=3,
        drain_seconds=4.0,
    )
    parts = service.components
    assert [listener.description for listener in service.public] == ["tcp:0", "tcp:1"]
    assert [listener.description for listener in service.admin] == ["tcp:2"]
    assert service.public[0].server is service.public[1].server
    assert service.public[0].server is not service.admin[0].server
    assert service.public[0].server.limits.body_bytes >= 6 * 100_000
    assert parts.notifier.max_held == 3
    assert service._drain_seconds == 4.0
    assert b"chatd_polls_held 0.0" in parts.metrics.render()
    assert b"chatd_connections 0.0" in parts.metrics.render()


def test_the_access_log_is_made_when_it_is_wanted() -> None:
    for wanted in (False, True):
        server: Any = build(access_log=wanted).public[0].server
        assert (server.resource.access is not None) is wanted


def test_the_database_is_where_it_was_said(tmp_path: Path) -> None:
    store: Any = build(db=f"sqlite:{tmp_path}/a b.db").components.store
    assert store.location == f"sqlite:{tmp_path}/a b.db"


def test_both_listeners_are_told_of_other_names() -> None:
    service = build(admin="tcp:9080", allowed_hosts=("chat.example",))
    servers = [each.server for each in (*service.public, *service.admin)]
    assert all(server.limits.hosts.allow(b"chat.example") for server in servers)
    assert not any(server.limits.hosts.allow(b"metrics.example") for server in servers)
    service.reconfigure(attrs.evolve(load({}, {})[0], admin="tcp:9080"))
    public, private = [server.limits.hosts for server in servers]
    assert public.allow(b"metrics.example")
    assert not private.allow(b"metrics.example")
    assert private.allow(b"localhost")
