"""Composition root: creates the components; the only module that imports stores and buses.

`compose_service` creates the whole daemon from its settings. Tests call the same functions with
a clock, threads and a bus that they control.
"""

from __future__ import annotations

import os
import random
import re
import resource
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from argon2 import PasswordHasher
from twisted.internet.endpoints import serverFromString
from twisted.internet.interfaces import IReactorTime

from chatd.api.access_log import AccessLog
from chatd.api.admin import Admin
from chatd.api.api import API
from chatd.api.client_address import TrustedProxies
from chatd.api.cors import CORS
from chatd.api.dispatch import Dispatch
from chatd.api.fast_path import FastPath
from chatd.api.problems import problem
from chatd.bus.local import LocalBus, NoPolls
from chatd.config import ConfigError, Settings
from chatd.domain.account_changes import AccountChanges
from chatd.domain.accounts import Accounts
from chatd.domain.administration import Administration
from chatd.domain.blocks import Blocks
from chatd.domain.bus_subscriber import BusSubscriber
from chatd.domain.chats import Chats
from chatd.domain.conversations import Conversations
from chatd.domain.deliveries import Deliveries
from chatd.domain.disk_space import DiskSpace
from chatd.domain.erasures import Erasures
from chatd.domain.last_seen import LastSeenWriter
from chatd.domain.notifier import Notifier
from chatd.domain.password_checks import PasswordChecks
from chatd.domain.passwords import THREADS, Passwords, owasp_hasher
from chatd.domain.rate_limits import RateLimits, Rates
from chatd.domain.read_limits import ReadLimits
from chatd.domain.receipts import Receipts
from chatd.domain.revisions import Revisions
from chatd.domain.session_expiry import SessionExpiry
from chatd.domain.store_calls import StoreCalls
from chatd.domain.sweep import Sweep
from chatd.domain.tokens import Tokens
from chatd.errors import StartError
from chatd.http.admission import Admission
from chatd.http.allowed_hosts import ANY, AllowedHosts
from chatd.http.request_ids import RequestIds
from chatd.http.server import Server
from chatd.http.unsent import UnsentBytes
from chatd.interfaces import IBus, IStore
from chatd.maintenance import Maintenance
from chatd.metrics import Metrics
from chatd.nats.address import parse as parse_nats
from chatd.process.admin_socket import AdminSocket
from chatd.process.certificates import Certificates
from chatd.process.components import Components
from chatd.process.gc_tuning import GCTuner
from chatd.process.listeners import Listener
from chatd.process.readiness import Readiness
from chatd.process.reloading import http_limits
from chatd.process.reuseport import ReusePortReactor
from chatd.process.service import ChatService
from chatd.process.supervisor import Supervisor
from chatd.process.systemd import ServiceManager
from chatd.runtime.shield import ShieldedTasks
from chatd.runtime.thread_pool import Executor, ThreadPool
from chatd.store.measuring import measure
from chatd.store.migrations import migrations
from chatd.store.sqlite.inspection import describe as describe_sqlite
from chatd.store.sqlite.store import SqliteStore

if TYPE_CHECKING:
    from chatd.bus.announcer import NatsAnnouncer
    from chatd.bus.interest import Interest
    from chatd.nats.address import Address as NatsAddress
    from chatd.postgres.address import Address
    from chatd.postgres.notify_payloads import NodeId
    from chatd.store.postgres.store import PostgresStore

RETRY_SECONDS: Final = 5
"""The longest `Retry-After` of a draining server; clients get 1 to this many seconds, at random."""

RESERVED_DESCRIPTORS: Final = 96
"""Descriptors reserved for listeners, files, database connections, connections that are being
refused, and `ADMIN_CONNECTIONS`."""

ADMIN_CONNECTIONS: Final = 32
"""Connections of the operators' listener, which are there however many the public one has."""


class PublicAPI(NamedTuple):
    """What the public listener serves."""

    resource: Dispatch
    fast_path: FastPath


def compose_service(
    settings: Settings,
    reactor: Any,
    gc_tuner: GCTuner | None = None,
    manager: ServiceManager | None = None,
) -> ChatService | Supervisor:
    """The daemon: one process, or the supervisor of `settings.workers`.

    Raises `ConfigError` for settings that cannot work.
    """
    if settings.workers > 1:
        if not is_postgres(settings.db):
            raise ConfigError("workers: more than 1 needs PostgreSQL: --db postgresql://...")
        _postgres_addresses(settings)
        _nats_address(settings)
        return Supervisor(settings, reactor, random.random, manager)
    metrics = Metrics()
    unsent = UnsentBytes(reactor.seconds)
    store, bus = compose_store_and_bus(settings, reactor, metrics)
    measure(store, reactor.seconds, metrics.store_observer, metrics.count_store_error)
    components = compose_domain(
        settings,
        store,
        bus,
        metrics,
        clock=reactor,
        now=microseconds,
        hashing=ThreadPool("passwords", THREADS, reactor.callFromThread),
        hasher=owasp_hasher(),
        rates=Rates() if settings.rate_limits else None,
        reads_answers=unsent.admits,
        free_bytes=_free_bytes(settings.db),
    )
    proxies = TrustedProxies(settings.trusted_proxies)
    request_ids = RequestIds()
    limits = http_limits(settings)
    cors = CORS(settings.cors_origins) if settings.cors_origins else None
    api = compose_api(
        components,
        clock=reactor,
        proxies=proxies,
        retry_jitter=lambda: random.randint(1, RETRY_SECONDS),
        access_log=AccessLog(proxies) if settings.access_log else None,
        request_ids=request_ids,
        cors=cors,
    )
    public = Server(
        resource=api.resource,
        fast_handler=api.fast_path,
        clock=reactor,
        limits=limits,
        hosts=AllowedHosts(settings.allowed_hosts or [ANY]),
        problem=problem,
        admission=_admission(settings, metrics, proxies),
        request_ids=request_ids,
        unsent=unsent,
        error_headers=None if cors is None else cors.in_head,
    )
    private = Server(
        resource=compose_admin(components, clock=reactor),
        clock=reactor,
        limits=limits,
        hosts=AllowedHosts(settings.allowed_hosts),
        problem=problem,
        admission=Admission(ADMIN_CONNECTIONS),
    )
    metrics.add_gauge(
        "chatd_connections", "Open connections of the public API", lambda: public.connections
    )
    metrics.add_counter(
        "chatd_connections_refused",
        "Connections that were answered 503 because there were too many",
        lambda: public.state.admission.refusals,
    )
    metrics.add_counter(
        "chatd_turns_waited",
        "How often a connection's next request waited for a later turn of the reactor",
        lambda: public.state.turns.queued,
    )
    metrics.add_gauge(
        "chatd_unsent_bytes",
        "Bytes of responses that their clients have not read and sockets have not taken",
        lambda: unsent.total,
    )
    admin_path = admin_socket_path(settings)
    # Processes on one PostgreSQL may share a port; on SQLite the second one is a mistake.
    sharing = ReusePortReactor(reactor) if is_postgres(settings.db) else reactor
    return ChatService(
        components,
        reactor,
        public=[_listener("listen", text, public, sharing) for text in settings.listen],
        admin=[
            _listener("admin", text, private, reactor)
            for text in ([settings.admin] if settings.admin else [])
        ],
        drain_seconds=settings.drain_seconds,
        lame_duck_seconds=settings.lame_duck_seconds,
        admin_socket=None
        if admin_path is None
        else AdminSocket(admin_path, Administration(store, bus), reactor),
        gc_tuner=gc_tuner,
        manager=manager,
    )


def _free_bytes(db: str) -> Callable[[], int] | None:
    """How much room the disk of an SQLite database has for the daemon."""
    path = _sqlite_path(db)
    if path is None:
        return None
    folder = os.path.dirname(os.path.realpath(path))

    def free_bytes() -> int:
        disk = os.statvfs(folder)
        return disk.f_bavail * disk.f_frsize

    return free_bytes


def _admission(settings: Settings, metrics: Metrics, proxies: TrustedProxies) -> Admission:
    """The limits on connections of the public API."""
    room = max(1, resource.getrlimit(resource.RLIMIT_NOFILE)[0] - RESERVED_DESCRIPTORS)
    # Behind the PROXY protocol, all connections are the proxy's.
    behind_proxy = any(text.startswith("haproxy:") for text in settings.listen)
    per_address: int | None = None
    if settings.rate_limits and settings.max_connections_per_address and not behind_proxy:
        per_address = min(settings.max_connections_per_address, room * 3 // 4)
    return Admission(room, per_address, proxies.is_trusted, metrics.count_refusal)


async def compose_administration(settings: Settings, reactor: Any) -> tuple[IStore, Administration]:
    """Administration of the database that `--db` names, and its store, which is open.

    In the end, stop the former, then close the latter.
    Raises `ConfigError`, and `StartError` also for a database that does not exist or is old.
    """
    store, bus = compose_store_and_bus(settings, reactor, Metrics(), upgrade=False)
    await store.open()
    if settings.bus is None:
        # Processes on the same database are notified by the store; this one has no polls.
        bus = LocalBus()
    else:
        try:
            await bus.start(NoPolls())
        except StartError:
            await store.close()
            raise
    return store, Administration(store, bus)


async def upgrade_database(settings: Settings, reactor: Any) -> None:
    """Create or migrate the database that `--db` names; raises `ConfigError` and `StartError`."""
    store, _ = compose_store_and_bus(settings, reactor, Metrics())
    await store.open()
    await store.close()


def compose_maintenance(settings: Settings) -> Maintenance:
    """Maintenance of the database that `--db` names; raises `ConfigError`."""
    path = _sqlite_path(settings.db)
    if path is not None:
        from chatd.store.sqlite.maintenance import SqliteMaintenance

        return SqliteMaintenance(
            path, migrations("sqlite"), shrinks=settings.keep_microseconds is not None
        )
    if not is_postgres(settings.db):
        raise _unknown_database()
    [address, _] = _postgres_addresses(settings)
    from chatd.store.postgres.maintenance import PostgresMaintenance

    return PostgresMaintenance(address, migrations("postgres"))


def admin_socket_path(settings: Settings) -> str | None:
    """Where the daemon has its administrator's socket; None on PostgreSQL, which needs none."""
    path = _sqlite_path(settings.db)
    return None if path is None else os.path.realpath(path) + ".admin"


def _sqlite_path(db: str) -> str | None:
    """The file that `--db` names; None if it is no SQLite database."""
    scheme, _, path = db.partition(":")
    return path if scheme == "sqlite" and path else None


def _unknown_database() -> ConfigError:
    # The value may hold a password, so it is not repeated.
    return ConfigError("db: neither sqlite:PATH nor postgresql://...")


def compose_domain(
    settings: Settings,
    store: IStore,
    bus: IBus,
    metrics: Metrics,
    *,
    clock: IReactorTime,
    now: Callable[[], int],
    hashing: Executor,
    hasher: PasswordHasher,
    rates: Rates | None,
    reads_answers: Callable[[int], bool] = lambda user_id: True,
    free_bytes: Callable[[], int] | None = None,
) -> Components:
    """Create the domain, on a store and a bus.

    `clock` gives seconds for durations, `now` microseconds for records; passwords are hashed by
    `hasher` in the threads of `hashing`. Without `rates` nothing is rate-limited.
    `reads_answers` is whether the clients of an account read what they are sent, `free_bytes` how
    much room the disk of the database has.
    """
    limits = RateLimits(rates, clock)
    notifier = Notifier(
        max_held=settings.max_polls, expiry=SessionExpiry(clock, now), interest=bus.interest
    )
    passwords = Passwords(hashing, hasher)
    checks = PasswordChecks(store, passwords, limits)
    last_seen = LastSeenWriter(store, clock, now)
    tasks = ShieldedTasks()
    read_limits = ReadLimits(limits, reads_answers)
    calls = StoreCalls(read_limits)
    disk = DiskSpace(free_bytes, settings.min_free_disk, clock)
    erasures = Erasures(store, bus, clock)
    accounts = Accounts(
        store,
        bus,
        passwords,
        checks,
        limits,
        last_seen,
        tasks,
        calls,
        disk,
        erasures,
        clock=clock,
        now=now,
        registration_open=settings.registration,
        directory_open=settings.directory,
        emails_shown=settings.show_email,
        min_password_length=settings.min_password_length,
    )
    changes = AccountChanges(
        store,
        bus,
        passwords,
        checks,
        tasks,
        calls,
        last_seen.with_last_seen,
        min_password_length=settings.min_password_length,
    )
    deliveries = Deliveries(store, bus, clock)
    chats = Chats(
        store,
        bus,
        notifier,
        limits,
        read_limits,
        calls,
        disk,
        clock=clock,
        max_message_bytes=settings.max_message_bytes,
        note_delivered=deliveries.note,
        observe_poll=metrics.observe_poll,
        observe_batch=metrics.batch_observer,
    )
    metrics.add_gauge("chatd_polls_held", "Polls and streams that wait now", lambda: notifier.held)
    metrics.add_labelled_gauge(
        "chatd_queue_depth",
        "Sends and reads that wait for the store, and passwords for being hashed",
        "queue",
        lambda: {**chats.queued(), "password": passwords.pending},
    )
    metrics.add_labelled_counter(
        "chatd_rate_limited", "What rate limits have refused, by limit", "limit", limits.refused
    )
    subscriber = BusSubscriber(store, notifier, accounts, metrics, clock.seconds)
    return Components(
        store=store,
        bus=bus,
        subscriber=subscriber,
        sweep=Sweep(store, notifier, clock, metrics, subscriber, lossy=bus.interest is not None),
        limits=limits,
        notifier=notifier,
        passwords=passwords,
        accounts=accounts,
        erasures=erasures,
        account_changes=changes,
        tokens=Tokens(store, bus, tasks, calls, last_seen.with_last_used),
        chats=chats,
        conversations=Conversations(store, bus, calls),
        receipts=Receipts(store, notifier, calls, clock),
        deliveries=deliveries,
        revisions=Revisions(
            store,
            bus,
            limits,
            max_message_bytes=settings.max_message_bytes,
            edit_seconds=settings.edit_seconds,
        ),
        blocks=Blocks(store, limits, calls),
        readiness=Readiness(store, bus, clock),
        metrics=metrics,
    )


def compose_api(
    components: Components,
    *,
    clock: IReactorTime,
    proxies: TrustedProxies,
    retry_jitter: Callable[[], int],
    access_log: AccessLog | None = None,
    request_ids: RequestIds | None = None,
    cors: CORS | None = None,
) -> PublicAPI:
    """The public listener's resource, and the short way to its frequent calls.

    With `cors`, browser apps of other origins may call the API.
    """
    request_ids = request_ids or RequestIds()
    api = API(
        components.accounts,
        components.account_changes,
        components.tokens,
        components.chats,
        components.conversations,
        components.receipts,
        components.revisions,
        components.blocks,
        ready=components.readiness.reasons,
        clock=clock,
        retry_jitter=retry_jitter,
        proxies=proxies,
    )
    dispatch = Dispatch(
        api,
        clock=clock,
        metrics=components.metrics,
        access=access_log,
        request_ids=request_ids,
        cors=cors,
    )
    fast_path = FastPath(
        dispatch,
        components.accounts,
        components.chats,
        api.reads,
        api.sends,
        seconds=clock.seconds,
        request_ids=request_ids,
        cors=cors is not None,
    )
    return PublicAPI(dispatch, fast_path)


def compose_admin(components: Components, *, clock: IReactorTime) -> Dispatch:
    """The resource of the operators' listener."""
    admin = Admin(components.metrics, components.readiness.reasons)
    return Dispatch(admin, clock=clock, metrics=components.metrics)


def compose_store_and_bus(
    settings: Settings, reactor: Any, metrics: Metrics, *, upgrade: bool = True
) -> tuple[IStore, IBus]:
    """The store and the bus that `--db` names, not opened yet; raises `ConfigError`.

    Without `upgrade` the store cannot be opened if its schema is missing or old.
    """
    path = _sqlite_path(settings.db)
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
            max_messages=settings.max_inbox_messages,
            upgrade=upgrade,
            keep=settings.keep_microseconds,
        )
        _add_sizes(metrics, store.file_sizes)
        return store, LocalBus()
    if is_postgres(settings.db):
        return _postgres_store_and_bus(settings, reactor, metrics, upgrade)
    raise _unknown_database()


def describe_database(settings: Settings) -> str:
    """What opening the database of `--db` would do to it; raises `StartError` if it cannot be."""
    if is_postgres(settings.db):
        from chatd.store.postgres.inspection import describe as describe_postgres

        return describe_postgres(_postgres_addresses(settings)[0])
    return describe_sqlite(settings.db.partition(":")[2])


def is_postgres(db: str) -> bool:
    """Whether `--db` names a PostgreSQL: by libpq's URL, or by its `keyword=value` pairs."""
    return re.match(r"postgres(ql)?://|\w+\s*=", db) is not None


def _postgres_addresses(settings: Settings) -> list[Address]:
    """The addresses of `--db` and `--listen-db`; raises `ConfigError`, also without txpostgres."""
    try:
        from chatd.postgres.address import parse
        from chatd.postgres.connection import Connection as _  # noqa: F401
    except ImportError as missing:
        raise ConfigError(
            f"db: PostgreSQL needs {missing.name}: in a clone of chatd, "
            ".venv/bin/pip install -e '.[postgres]'"
        ) from None
    addresses = []
    for option, text, application in (
        ("db", settings.db, "chatd"),
        ("listen-db", settings.listen_db or settings.db, "chatd bus"),
    ):
        try:
            addresses.append(parse(text, application))
        except ValueError as wrong:
            # The value may hold a password, so it is not repeated.
            raise ConfigError(f"{option}: {wrong}") from None
    return addresses


def _nats_address(settings: Settings) -> NatsAddress | None:
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
    db, listen_db = _postgres_addresses(settings)
    nats = _nats_address(settings)
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
        max_messages=settings.max_inbox_messages,
        upgrade=upgrade,
        keep=settings.keep_microseconds,
        observe_pool_wait=metrics.add_duration(
            "chatd_postgres_pool_wait_seconds",
            "How long statements waited for a free connection to the database",
        ),
        announcer=announcer,
        listened=None if interest is None else interest.users,
    )
    _add_sizes(metrics, store.file_sizes)
    metrics.add_gauge(
        "chatd_postgres_connections",
        "Open connections to the database, without the one that listens",
        lambda: store.pool.connections,
    )
    metrics.add_gauge(
        "chatd_postgres_pool_waiting",
        "Statements that wait for a free connection to the database",
        lambda: store.pool.waiting,
    )
    metrics.add_counter(
        "chatd_postgres_reconnects",
        "Connections to the database that were lost and made again",
        lambda: store.pool.reconnects,
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


def _add_sizes(metrics: Metrics, read: Callable[[], dict[str, float]]) -> None:
    metrics.add_labelled_gauge(
        "chatd_database_bytes", "Size of the database; of SQLite's files", "file", read
    )


def _listener(option: str, text: str, server: Server, reactor: Any) -> Listener:
    certificates = Certificates(reactor, text)
    try:
        return Listener(text, serverFromString(certificates, text), server, certificates)
    except (IndexError, KeyError):
        raise ConfigError(f"{option}: systemd has passed no such socket as {text!r}") from None
    except Exception as wrong:
        raise ConfigError(f"{option}: {text!r} is not an endpoint: {wrong}") from None


def microseconds() -> int:
    """The wall clock, in microseconds since the Unix epoch."""
    return time.time_ns() // 1000
