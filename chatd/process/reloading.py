"""Reloading: what SIGHUP changes in a running daemon."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, Protocol

import attrs
from twisted.logger import Logger

from chatd.config import ConfigError, Settings, changes
from chatd.domain.rate_limits import Rates
from chatd.http.allowed_hosts import ANY, AllowedHosts
from chatd.http.limits import HTTPLimits
from chatd.http.server import Server
from chatd.process.components import Components
from chatd.process.logs import DaemonLog
from chatd.process.systemd import ServiceManager

MIN_BODY_BYTES: Final = 128 * 1024

_log = Logger()


class Reloadable(Protocol):
    """The daemon: one process, or the supervisor of several."""

    def reconfigure(self, settings: Settings) -> None:
        """Take these settings, of which only reloadable ones have changed."""
        ...

    def reload_certificates(self) -> None:
        """Read the certificates of TLS endpoints again."""
        ...

    def status(self) -> str:
        """One line for the service manager."""
        ...


class Reloader:
    """Reloads settings, certificates and the log of a daemon; whatever is wrong is logged.

    `load` reads the settings from where they came from. `log` is None if the daemon logs as twistd
    was told by other options than chatd's.
    """

    def __init__(
        self,
        settings: Settings,
        load: Callable[[], Settings],
        daemon: Reloadable,
        log: DaemonLog | None,
        manager: ServiceManager,
    ) -> None:
        self._settings = settings
        self._load = load
        self._daemon = daemon
        self._log = log
        self._manager = manager

    def reopen_log(self) -> None:
        """Write to a new log file if the old one was moved away."""
        if self._log is not None:
            self._log.output.reopen()

    def reload(self) -> None:
        """Reopen the log, read certificates and settings again, and take what can be changed."""
        self._manager.reloading()
        self.reopen_log()
        self._daemon.reload_certificates()
        try:
            wanted = self._load()
        except ConfigError as wrong:
            _log.error("the settings are not reloaded: {reason}", reason=wrong)
        else:
            self._take(wanted)
        self._manager.ready(self._daemon.status())

    def _take(self, wanted: Settings) -> None:
        reloadable, others = changes(self._settings, wanted)
        values = {option.field: getattr(wanted, option.field) for option in reloadable}
        self._settings = attrs.evolve(self._settings, **values)
        if self._log is not None:
            self._log.set_level(self._settings.log_level)
        self._daemon.reconfigure(self._settings)
        names = ", ".join(option.name for option in reloadable)
        _log.info("the settings are reloaded; changed: {names}", names=names or "nothing")
        if others:
            names = ", ".join(option.name for option in others)
            _log.warn("these settings need a restart: {names}", names=names)


def http_limits(settings: Settings, hosts: Sequence[str] = (ANY,)) -> HTTPLimits:
    """The limits of an HTTP server that answers to those `hosts` unless it is told which."""
    # The largest message must fit even if all of it is written in \uXXXX escapes (contract).
    return HTTPLimits(
        body_bytes=max(MIN_BODY_BYTES, 6 * settings.max_message_bytes + 4096),
        hosts=AllowedHosts(settings.allowed_hosts or hosts),
    )


def connections_per_address(settings: Settings) -> int | None:
    """The `max_per_address` of `Admission`; None: no limit."""
    # Behind the PROXY protocol, all connections are the proxy's.
    if not settings.rate_limits or settings.proxy_protocol:
        return None
    return settings.max_connections_per_address or None


def rates(settings: Settings) -> Rates | None:
    """The rates of the rate limits; None if there are none."""
    if not settings.rate_limits:
        return None
    return Rates(
        registration=settings.rate_registrations,
        log_in=settings.rate_log_ins,
        failed_log_in=settings.rate_wrong_passwords,
        guessed_log_in=settings.rate_guesses,
        read=settings.rate_reads,
        send=settings.rate_messages,
        message_bytes=settings.rate_message_bytes,
    )


def reconfigure(components: Components, server: Server, settings: Settings) -> None:
    """Change what a running daemon can change; connections keep their limits."""
    components.limits.set_rates(rates(settings))
    components.notifier.max_held = settings.max_polls
    components.accounts.registration_open = settings.registration
    components.accounts.min_password_length = settings.min_password_length
    components.account_changes.min_password_length = settings.min_password_length
    components.chats.max_message_bytes = settings.max_message_bytes
    components.revisions.max_message_bytes = settings.max_message_bytes
    components.revisions.edit_seconds = settings.edit_seconds
    components.store.limits.messages = settings.max_inbox_messages
    components.store.limits.bytes = settings.max_inbox_bytes
    components.store.keep = settings.keep_microseconds
    components.disk.least = settings.min_free_disk
    server.set_limits(http_limits(settings))
    server.state.admission.max_per_address = connections_per_address(settings)
