"""Creates the store and the bus that the settings name."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from chatd.bus.local import LocalBus
from chatd.compose.databases import (
    is_postgres,
    microseconds,
    postgres_addresses,
    sqlite_path,
    unknown_database,
)
from chatd.config import ConfigError, Settings
from chatd.interfaces import IBus, IStore
from chatd.metrics import Metrics
from chatd.model import InboxLimits
from chatd.nats.address import parse as parse_nats
from chatd.runtime.thread_pool import ThreadPool
from chatd.store.sqlite.store import SqliteStore

if TYPE_CHECKING:
    from chatd.bus.announcer import NatsAnnouncer
    from chatd.bus.interest import Interest
    from chatd.nats.address import Address as NatsAddress
    from chatd.postgres.address import Address
    from chatd.postgres.notify_payloads import NodeId
    from chatd.store.postgres.store import PostgresStore


def compose_store_and_bus(
    settings: Settings, reactor: Any, metrics: Metrics, *, upgrade: bool = True
) -> tuple[IStore, IBus]:
    """The store and the bus that `--db` names, not opened yet; raises `ConfigError`.

    Without `upgrade` the store cannot be opened if its schema is missing or old.
    """
    path = sqlite_path(settings.db)
    if path is not None:
        if settings.listen_db is not None:
            raise ConfigError("listen-db: only PostgreSQL listens; --db is SQLite")
        if settings.bus is not None:
            raise ConfigError("bus: it needs PostgreSQL: on SQLite there is only one process")
        store = SqliteStore(
            path,
            clock=reactor,
            now=microseconds,
            worker=lambda name: ThreadPool(name, 1, reactor.callFromThread),
            known_only=not settings.first_contact,
            limits=InboxLimits(settings.max_inbox_messages, settings.max_inbox_bytes),
            upgrade=upgrade,
            keep=settings.keep_microseconds,
        )
        _add_sizes(metrics, store.file_sizes, store.backed_up_at)
        return store, LocalBus()
    if is_postgres(settings.db):
        return _postgres_store_and_bus(settings, reactor, metrics, upgrade)
    raise unknown_database()


def nats_address(settings: Settings) -> NatsAddress | None:
    """The address of `--bus`, None if it is not given; raises `ConfigError`."""
    if settings.bus is None:
        return None
    if settings.listen_db is not None:
        raise ConfigError("listen-db: nothing listens to PostgreSQL with --bus")
    try:
        return parse_nats(settings.bus)
    except ValueError as wrong:
        # The value may hold a password, so it is not repeated.
        raise ConfigError(f"bus: {wrong}") from None


def _postgres_store_and_bus(
    settings: Settings, reactor: Any, metrics: Metrics, upgrade: bool
) -> tuple[IStore, IBus]:
    db, listen_db = postgres_addresses(settings)
    nats = nats_address(settings)
    from chatd.postgres.notify_payloads import NodeId
    from chatd.store.postgres.store import PostgresStore

    node_id = NodeId()
    interest = announcer = None
    if nats is not None:
        from chatd.bus.announcer import NatsAnnouncer
        from chatd.bus.interest import Interest

        interest, announcer = Interest(reactor.seconds), NatsAnnouncer(reactor)
    store = PostgresStore(
        db,
        reactor=reactor,
        now=microseconds,
        node_id=node_id,
        known_only=not settings.first_contact,
        limits=InboxLimits(settings.max_inbox_messages, settings.max_inbox_bytes),
        upgrade=upgrade,
        keep=settings.keep_microseconds,
        observe_pool_wait=metrics.add_duration(
            "chatd_postgres_pool_wait_seconds",
            "How long statements waited for a free connection to the database",
        ),
        announcer=announcer,
        listened=None if interest is None else interest.users,
    )
    _add_sizes(metrics, store.file_sizes, store.backed_up_at)
    metrics.add_gauge(
        "chatd_postgres_connections",
        "Open connections to the database, without the one that listens",
        lambda: sum(each.connections for each in store.pools),
    )
    metrics.add_gauge(
        "chatd_postgres_pool_waiting",
        "Statements that wait for a free connection to the database",
        lambda: sum(each.waiting for each in store.pools),
    )
    metrics.add_counter(
        "chatd_postgres_reconnects",
        "Connections to the database that were lost and made again",
        lambda: sum(each.reconnects for each in store.pools),
    )
    if nats is not None and interest is not None and announcer is not None:
        return store, _nats_bus(nats, reactor, metrics, store, interest, announcer)
    return store, _postgres_bus(listen_db, reactor, metrics, store, node_id)


def _postgres_bus(
    address: Address, reactor: Any, metrics: Metrics, store: PostgresStore, node_id: NodeId
) -> IBus:
    from chatd.bus.postgres import PostgresBus

    bus = PostgresBus(
        address,
        reactor=reactor,
        node_id=node_id,
        random=random.random,
        listener=store,
        observe_lag=metrics.add_duration(
            "chatd_bus_lag_seconds", "How long a notice took from this process to itself"
        ),
    )
    # Else each process would be ready after a delay of its own.
    store.pool.on_recovered = bus.reconnect_soon
    metrics.add_counter(
        "chatd_bus_reconnects",
        "How often the connection that listens was lost and made again",
        lambda: bus.reconnects,
    )
    return bus


def _nats_bus(
    address: NatsAddress,
    reactor: Any,
    metrics: Metrics,
    store: PostgresStore,
    interest: Interest,
    announcer: NatsAnnouncer,
) -> IBus:
    from chatd import __version__
    from chatd.bus.nats import NatsBus
    from chatd.nats.connector import Connector

    interest.forget = store.forget
    bus = NatsBus(
        address,
        Connector(address, reactor, random.random, __version__),
        reactor=reactor,
        random=random.random,
        epoch=lambda: store.epoch,
        interest=interest,
        announcer=announcer,
        listener=store,
        observe_lag=metrics.add_duration(
            "chatd_bus_lag_seconds", "How long the NATS server took to answer a PING"
        ),
    )
    metrics.add_counter(
        "chatd_bus_reconnects",
        "How often the connection to NATS was lost and made again",
        lambda: bus.reconnects,
    )
    metrics.add_counter(
        "chatd_bus_gaps",
        "How often messages of another process were missing, or it was silent",
        lambda: bus.gaps,
    )
    metrics.add_gauge("chatd_bus_peers", "Other processes that are heard", lambda: bus.peers)
    metrics.add_gauge(
        "chatd_bus_subscriptions",
        "Users whose events are received",
        lambda: len(interest.users),
    )
    return bus


def _add_sizes(
    metrics: Metrics,
    read: Callable[[], dict[str, float]],
    backed_up_at: Callable[[], int | None],
) -> None:
    metrics.add_labelled_gauge(
        "chatd_database_bytes", "Size of the database; of SQLite's files", "file", read
    )
    metrics.add_gauge(
        "chatd_last_backup_timestamp_seconds",
        "The moment that the newest copy of chatd db backup shows, as Unix time; 0 without one",
        lambda: (backed_up_at() or 0) / 1_000_000,
    )
