"""What `twistd chatd` and `chatd.tac` run: the command line, and the service it makes."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import sys
from collections.abc import Sequence
from typing import Any, Final, NoReturn

from twisted.application.service import IService
from twisted.logger import Logger
from twisted.python import usage

from chatd import __version__
from chatd.check import check
from chatd.compose.service import RESERVED_DESCRIPTORS, compose_service
from chatd.config import OPTIONS, ConfigError, Settings, load
from chatd.errors import StartError
from chatd.process.gc_tuning import GCTuner
from chatd.process.logs import DaemonLog, LoggingService, LogOutput
from chatd.process.reloading import Reloader
from chatd.process.signals import Signals, on_signal
from chatd.process.systemd import ServiceManager
from chatd.runtime.monotonic import use_monotonic_clock

DEFAULT_LOG: Final = "twistd.log"
"""The log of a process in the background, as of any other service of twistd."""

SWITCH_SECONDS: Final = 0.001
"""For how long a thread that runs Python may keep the others from it; the default is five times
that. The threads of the store take Python's lock again after each step of a statement, a dozen
times for a send: beside a reactor that is never idle that would be 60 ms."""

FEW_DESCRIPTORS: Final = 1024
"""A service has more clients than that; below, a warning is logged."""

_log = Logger()


class Options(usage.Options):
    """The command line; what is not given there comes from the environment and the file."""

    synopsis = "[options]"
    longdesc = "A long-polling chat daemon. Every option is also a key of the TOML file named by "
    longdesc += "--config and an environment variable: CHATD_LISTEN, CHATD_DB ..."

    optParameters: Sequence[Sequence[object]] = [
        *(
            [option.name, None, None, f"{option.help} [default: {option.default_text or 'none'}]"]
            for option in OPTIONS
            if option.name != "listen"
        ),
        ["config", None, None, "The TOML file. [default: none]"],
    ]

    optFlags: Sequence[Sequence[object]] = [
        ["check", None, "Check settings, certificates and database, say what would be done, exit."]
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
        if program in ("chatd serve", "chatd check-config"):
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
        is_check = self.pop("check")
        given = {name: value for name, value in self.items() if value is not None}
        if self._listen:
            given["listen"] = self._listen
        # twistd may change the working folder before a reload.
        config = given.get("config", os.environ.get("CHATD_CONFIG"))
        if config:
            # If the working folder was removed, it is not found below.
            with contextlib.suppress(FileNotFoundError):
                given["config"] = os.path.abspath(config)
        self.configure(given)
        if is_check:
            self._check()

    def configure(self, given: dict[str, Any]) -> None:
        """Load all settings; an invalid one ends the process with one line."""
        self._given = given
        try:
            self.settings, self.warnings = load(given, os.environ)
        except ConfigError as wrong:
            raise SystemExit(f"chatd: {wrong}") from None

    def reload(self) -> Settings:
        """The settings as they are now; raises `ConfigError`."""
        return load(self._given, os.environ)[0]

    def _check(self) -> NoReturn:
        from twisted.internet import reactor

        try:
            lines = check(self.settings, reactor)
        except (ConfigError, StartError) as wrong:
            raise SystemExit(f"chatd: {wrong}") from None
        for line in (*(f"warning: {text}" for text in self.warnings), *lines):
            print(line)  # noqa: T201
        raise SystemExit(0)


def makeService(options: Options) -> IService:
    """Create the daemon for twistd's plugin."""
    from twisted.internet import reactor

    use_monotonic_clock(reactor)
    for warning in options.warnings:
        _log.warn("{warning}", warning=warning)
    _raise_descriptor_limit()
    sys.setswitchinterval(SWITCH_SECONDS)
    manager = ServiceManager(os.environ, os.getpid())
    try:
        service = compose_service(options.settings, reactor, GCTuner(reactor), manager)
    except ConfigError as wrong:
        raise SystemExit(f"chatd: {wrong}") from None
    log = _log_of(options)
    reloader = Reloader(options.settings, options.reload, service, log, manager)
    on_signal(reactor, signal.SIGHUP, reloader.reload)
    on_signal(reactor, signal.SIGUSR1, reloader.reopen_log)
    # Until Signals are installed: whoever reads that the daemon listens may stop it at once.
    on_signal(reactor, signal.SIGTERM, reactor.stop)
    reactor.callWhenRunning(Signals(reactor, service.force_stop).install)
    return service if log is None else LoggingService(service, log)


def service_from_environment() -> IService:
    """Create the daemon for `chatd.tac`, configured only by the environment."""
    options = Options()
    options.configure({})
    return makeService(options)


def _log_of(options: Options) -> DaemonLog | None:
    """The log where twistd's options want it; None if twistd is to write it."""
    # A .tac file does not see twistd's options.
    twistd = getattr(options, "parent", None)
    if twistd is None or twistd.get("logger") or twistd.get("syslog"):
        return None
    path = twistd.get("logfile") or (None if twistd.get("nodaemon") else DEFAULT_LOG)
    settings = options.settings
    return DaemonLog(
        LogOutput(None if path == "-" else path),
        level=settings.log_level,
        as_json=settings.log_format == "json",
    )


def _raise_descriptor_limit() -> None:
    # Every held poll uses a descriptor; many systems start processes with a soft limit of 1024.
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if hard != resource.RLIM_INFINITY and hard < FEW_DESCRIPTORS:
        _log.warn(
            "only {most} connections can be open, each of them a held poll: this process may have"
            " {hard} files open; raise that by ulimit -n or LimitNOFILE=",
            most=max(1, hard - RESERVED_DESCRIPTORS),
            hard=hard,
        )
