"""What `twistd chatd` and `chatd.tac` run: the options, and the one place that puts parts together.

Only this module names implementations of the store and the bus.
"""

from __future__ import annotations

import os
import random
import re
import resource
import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final, NoReturn

from twisted.application.service import IService
from twisted.internet.endpoints import serverFromString
from twisted.logger import Logger
from twisted.python import usage

from chatd import __version__
from chatd.api.access_log import AccessLog
from chatd.api.admin import Admin
from chatd.api.api import API
from chatd.api.client_address import TrustedProxies
from chatd.api.dispatch import Dispatch
from chatd.api.problems import problem
from chatd.bus.local import LocalBus
from chatd.config import OPTIONS, ConfigError, Settings, load
from chatd.domain.accounts import Accounts
from chatd.domain.chats import Chats
from chatd.domain.notifier import Notifier
from chatd.domain.passwords import THREADS, Passwords, owasp_hasher
from chatd.domain.rate_limits import RateLimits, Rates
from chatd.domain.subscriber import Subscriber, Sweep
from chatd.http.limits import HTTPLimits
from chatd.http.request_ids import RequestIds
from chatd.http.server import Server
from chatd.interfaces import IBus, IStore
from chatd.metrics import Metrics
from chatd.process.gc_tuning import GCTuner
from chatd.process.readiness import Readiness
from chatd.process.reuseport import ReusePortReactor
from chatd.process.service import ChatService, Components, Listener
from chatd.process.signals import Signals
from chatd.process.supervisor import Supervisor
from chatd.runtime.thread_pool import ThreadPool
from chatd.store.sqlite.store import SqliteStore

if TYPE_CHECKING:
    from chatd.postgres.address import Address

SPREAD_SECONDS: Final = 5
"""Clients of a draining server come back within so many seconds, not all at once."""

RESERVED_DESCRIPTORS: Final = 64
"""Descriptors that are not for clients: listeners, files, database connections, operators."""

_log = Logger()


class Options(usage.Options):
    """The command line; what is not given there comes from the environment and the file."""

    synopsis = "[options]"
    longdesc = "A long-polling chat daemon. Every option is also a key of the TOML file named by "
    longdesc += "--config and an environment variable: CHATD_LISTEN, CHATD_DB ..."

    optParameters: Sequence[Sequence[object]] = [
        *(
            [option.name, None, None, f"{option.help} [default: {option.default}]"]
            for option in OPTIONS
            if option.name != "listen"
        ),
        ["config", None, None, "The TOML file. [default: none]"],
    ]

    settings: Settings
    warnings: Sequence[str]

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._listen: list[str] = []

    def opt_listen(self, endpoint: str) -> None:
        """Endpoint of the public API, as Twisted's server endpoints are written; may be repeated.
        [default: tcp:8080:interface=127.0.0.1]
        """
        self._listen.append(endpoint)

    def opt_version(self) -> NoReturn:
        """Display the version of chatd and exit."""
        print(f"chatd {__version__}")  # noqa: T201
        raise SystemExit(0)

    def getSynopsis(self) -> str:
        # `chatd serve` runs twistd under its own name.
        program = os.path.basename(sys.argv[0])
        if program == "chatd serve":
            return f"Usage: {program} {self.synopsis}"
        return str(super().getSynopsis())

    def parseArgs(self, *arguments: str) -> None:
        if arguments:
            raise usage.UsageError(f"unexpected argument {arguments[0]!r}")

    def parseOptions(self, options: Sequence[str] | None = None) -> None:
        try:
            super().parseOptions(options)  # type: ignore[no-untyped-call]
        except usage.UsageError as wrong:
            hint = self.getSynopsis().replace("Usage", "usage")
            raise SystemExit(f"chatd: {wrong}; {hint}") from None

    def postOptions(self) -> None:
        given = {name: value for name, value in self.items() if value is not None}
        if self._listen:
            given["listen"] = self._listen
        self.configure(given)

    def configure(self, given: dict[str, Any]) -> None:
        """Settle all settings; a bad one ends the process with one line."""
        try:
            self.settings, self.warnings = load(given, os.environ)
        except ConfigError as wrong:
            raise SystemExit(f"chatd: {wrong}") from None


def makeService(options: Options) -> IService:
    """The daemon, as twistd's plugin asks for it."""
    from twisted.internet import reactor

    for warning in options.warnings:
        _log.warn("{warning}", warning=warning)
    _raise_descriptor_limit()
    try:
        service = build(options.settings, reactor, GCTuner(reactor))
    except ConfigError as wrong:
        raise SystemExit(f"chatd: {wrong}") from None
    reactor.callWhenRunning(Signals(reactor, service.force_stop).handle)
    return service


def service_from_environment() -> IService:
    """The daemon as `chatd.tac` starts it, configured by the environment alone."""
    options = Options()
    options.configure({})
    return makeService(options)


def build(
    settings: Settings, reactor: Any, collector: GCTuner | None = None
) -> ChatService | Supervisor:
    """Put the parts together; raises `ConfigError` for settings that cannot work."""
    if settings.workers > 1:
        if not is_postgres(settings.db):
            raise ConfigError("workers: more than 1 needs PostgreSQL: --db postgresql://...")
        _postgres_addresses(settings)
        return Supervisor(settings, reactor, random.random)
    metrics = Metrics()
    store, bus = store_and_bus(settings, reactor, metrics)
    notifier = Notifier(reactor, max_held=settings.max_polls)
    limits = RateLimits(Rates() if settings.rate_limits else None, reactor)
    passwords = Passwords(ThreadPool("passwords", THREADS, reactor.callFromThread), owasp_hasher())
    accounts = Accounts(
        store,
        bus,
        passwords,
        limits,
        clock=reactor,
        now=_now,
        registration_open=settings.registration,
        min_password_length=settings.min_password_length,
    )
    chats = Chats(
        store,
        bus,
        notifier,
        limits,
        clock=reactor,
        max_message_bytes=settings.max_message_bytes,
        observe_poll=metrics.poll,
        observe_batch=metrics.batch,
    )
    readiness = Readiness(store, bus, reactor)
    proxies = TrustedProxies(settings.trusted_proxies)
    api = API(
        accounts,
        chats,
        ready=readiness.reasons,
        seconds=reactor.seconds,
        retry_jitter=lambda: random.randint(1, SPREAD_SECONDS),
        proxies=proxies,
    )
    access = AccessLog(proxies) if settings.access_log else None
    # The contract promises room for a message written wholly in \uXXXX escapes.
    http_limits = HTTPLimits(body_bytes=max(128 * 1024, 6 * settings.max_message_bytes + 4096))
    request_ids = RequestIds()
    public = Server(
        resource=Dispatch(
            api, clock=reactor, metrics=metrics, access=access, request_ids=request_ids
        ),
        clock=reactor,
        limits=http_limits,
        problem=problem,
        max_connections=resource.getrlimit(resource.RLIMIT_NOFILE)[0] - RESERVED_DESCRIPTORS,
        request_ids=request_ids,
    )
    admin = Admin(metrics, readiness.reasons)
    private = Server(
        resource=Dispatch(admin, clock=reactor, metrics=metrics),
        clock=reactor,
        limits=http_limits,
        problem=problem,
    )
    metrics.gauge("chatd_polls_held", "Polls that wait now", lambda: notifier.held)
    metrics.gauge(
        "chatd_connections", "Open connections of the public API", lambda: public.connections
    )
    # Processes on one PostgreSQL may share a port; on SQLite the second one is a mistake.
    sharing = ReusePortReactor(reactor) if is_postgres(settings.db) else reactor
    subscriber = Subscriber(notifier, accounts, metrics)
    parts = Components(
        store=store,
        bus=bus,
        subscriber=subscriber,
        sweep=Sweep(store, notifier, reactor, metrics, subscriber),
        notifier=notifier,
        passwords=passwords,
        accounts=accounts,
        chats=chats,
        readiness=readiness,
        metrics=metrics,
        public=[_listener("listen", text, public, sharing) for text in settings.listen],
        admin=[
            _listener("admin", text, private, reactor)
            for text in ([settings.admin] if settings.admin else [])
        ],
    )
    return ChatService(parts, reactor, settings.drain_seconds, collector)


def store_and_bus(settings: Settings, reactor: Any, metrics: Metrics) -> tuple[IStore, IBus]:
    scheme, _, rest = settings.db.partition(":")
    if scheme == "sqlite" and rest:
        if settings.listen_db is not None:
            raise ConfigError("listen-db: only PostgreSQL listens; --db is SQLite")
        store = SqliteStore(
            rest,
            clock=reactor,
            now=_now,
            worker=lambda name: ThreadPool(name, 1, reactor.callFromThread),
        )
        return store, LocalBus()
    if is_postgres(settings.db):
        return _postgres_parts(settings, reactor, metrics)
    # The value may hold a password, so it is not repeated.
    raise ConfigError("db: neither sqlite:PATH nor postgresql://...")


def is_postgres(db: str) -> bool:
    """Whether `--db` names a PostgreSQL: by libpq's URL, or by its `keyword=value` pairs."""
    return re.match(r"postgres(ql)?://|\w+\s*=", db) is not None


def _postgres_addresses(settings: Settings) -> list[Address]:
    """Of `--db` and `--listen-db`; raises `ConfigError`, also where txpostgres is missing."""
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


def _postgres_parts(settings: Settings, reactor: Any, metrics: Metrics) -> tuple[IStore, IBus]:
    db, listen_db = _postgres_addresses(settings)
    from chatd.bus.postgres import PostgresBus
    from chatd.postgres.notify_payloads import NodeId
    from chatd.store.postgres.store import PostgresStore

    node_id = NodeId()
    store = PostgresStore(db, reactor=reactor, now=_now, node_id=node_id)
    bus = PostgresBus(
        listen_db,
        reactor=reactor,
        node_id=node_id,
        random=random.random,
        listener=store,
        observe_lag=metrics.seconds(
            "chatd_bus_lag_seconds", "How long a notice took from this process to itself"
        ),
    )
    metrics.gauge(
        "chatd_postgres_connections",
        "Open connections to the database, without the one that listens",
        lambda: store.pool.connections,
    )
    metrics.counter(
        "chatd_postgres_reconnects",
        "Connections to the database that were lost and made again",
        lambda: store.pool.reconnects,
    )
    metrics.counter(
        "chatd_bus_reconnects",
        "How often the connection that listens was lost and made again",
        lambda: bus.reconnects,
    )
    return store, bus


def _listener(option: str, text: str, server: Server, reactor: Any) -> Listener:
    try:
        return Listener(text, serverFromString(reactor, text), server)
    except Exception as wrong:
        raise ConfigError(f"{option}: {text!r} is not an endpoint: {wrong}") from None


def _now() -> int:
    return time.time_ns() // 1000


def _raise_descriptor_limit() -> None:
    # Every held poll is a descriptor; many systems start processes with a soft limit of 1024.
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
