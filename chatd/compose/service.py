"""Creates the daemon from its settings."""

from __future__ import annotations

import os
import random
import resource
from collections.abc import Callable
from typing import Any, Final

from twisted.internet.endpoints import serverFromString

from chatd.api.access_log import AccessLog
from chatd.api.client_address import TrustedProxies
from chatd.api.cors import CORS
from chatd.api.problems import problem
from chatd.compose.api import compose_admin, compose_api
from chatd.compose.databases import (
    admin_socket_path,
    is_postgres,
    microseconds,
    postgres_addresses,
    sqlite_path,
)
from chatd.compose.domain import compose_domain
from chatd.compose.storage import compose_store_and_bus, nats_address
from chatd.config import ConfigError, Settings, without_password
from chatd.domain.administration import Administration
from chatd.domain.passwords import owasp_hasher, threads_on
from chatd.http.admission import Admission
from chatd.http.received import ReceivedBytes
from chatd.http.request_ids import RequestIds
from chatd.http.server import Server
from chatd.http.unsent import UnsentBytes
from chatd.metrics import Metrics
from chatd.process.admin_socket import AdminSocket
from chatd.process.certificates import Certificates, reason_of
from chatd.process.gc_tuning import GCTuner
from chatd.process.listeners import Listener
from chatd.process.polling import bound_turns
from chatd.process.reloading import connections_per_address, http_limits, rates
from chatd.process.reuseport import ReusePortReactor
from chatd.process.service import ChatService
from chatd.process.supervisor import Supervisor
from chatd.process.systemd import ServiceManager
from chatd.runtime.thread_pool import ThreadPool
from chatd.store.measuring import measure

RETRY_SECONDS: Final = 5
"""The longest `Retry-After` of a draining server; clients get 1 to this many seconds, at random."""

RESERVED_DESCRIPTORS: Final = 112
"""Descriptors reserved for listeners, files, database connections, connections that are being
refused or replaced, and `ADMIN_CONNECTIONS`."""

ADMIN_CONNECTIONS: Final = 32
"""Connections of the operators' listener, which are there however many the public one has."""


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
        postgres_addresses(settings)
        nats_address(settings)
        return Supervisor(settings, reactor, random.random, manager)
    bound_turns(reactor)
    metrics = Metrics()
    unsent = UnsentBytes(reactor.seconds, metrics.count_refusal)
    store, bus = compose_store_and_bus(settings, reactor, metrics)
    measure(store, reactor.seconds, metrics.store_observer, metrics.count_store_error)
    threads = threads_on(_cores())
    components = compose_domain(
        settings,
        store,
        bus,
        metrics,
        clock=reactor,
        now=microseconds,
        hashing=ThreadPool("passwords", threads, reactor.callFromThread),
        hashing_threads=threads,
        hasher=owasp_hasher(),
        rates=rates(settings),
        reads_answers=unsent.admits,
        free_bytes=_free_bytes(settings.db),
    )
    proxies = TrustedProxies(settings.trusted_proxies, proxy_protocol=settings.proxy_protocol)
    request_ids = RequestIds()
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
        limits=http_limits(settings),
        problem=problem,
        admission=_admission(settings, metrics, proxies),
        request_ids=request_ids,
        unsent=unsent,
        received=ReceivedBytes(metrics.count_refusal),
        error_headers=None if cors is None else cors.in_head,
        client_of=proxies.in_head if settings.trusted_proxies else None,
    )
    private = Server(
        resource=compose_admin(components, clock=reactor),
        clock=reactor,
        limits=http_limits(settings, ()),
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
        "chatd_connections_evicted",
        "Connections of addresses with many that were closed so that others had room",
        lambda: public.state.admission.evictions,
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
    path = sqlite_path(db)
    if path is None:
        return None
    folder = os.path.dirname(os.path.realpath(path))

    def free_bytes() -> int:
        disk = os.statvfs(folder)
        return disk.f_bavail * disk.f_frsize

    return free_bytes


def _cores() -> int:
    """How many cores this process may use."""
    # Not all systems tell which ones.
    affinity: Callable[[int], set[int]] | None = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity is not None else os.cpu_count() or 1


def _admission(settings: Settings, metrics: Metrics, proxies: TrustedProxies) -> Admission:
    """The limits on connections of the public API."""
    room = max(1, resource.getrlimit(resource.RLIMIT_NOFILE)[0] - RESERVED_DESCRIPTORS)
    per_address = connections_per_address(settings)
    return Admission(room, per_address, proxies.is_trusted, metrics.count_refusal)


def _listener(option: str, text: str, server: Server, reactor: Any) -> Listener:
    certificates = Certificates(reactor, text)
    try:
        return Listener(text, serverFromString(certificates, text), server, certificates)
    except (IndexError, KeyError):
        raise ConfigError(f"{option}: systemd has passed no such socket as {text!r}") from None
    except Exception as wrong:
        shown = without_password(text)
        raise ConfigError(f"{option}: {shown!r} is not an endpoint: {reason_of(wrong)}") from None
