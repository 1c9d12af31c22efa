"""What `twistd chatd` and `chatd.tac` run: the command line, and the service it makes."""

from __future__ import annotations

import os
import resource
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from twisted.application.service import IService
from twisted.logger import Logger
from twisted.python import usage

from chatd import __version__
from chatd.compose import compose_service
from chatd.config import OPTIONS, ConfigError, Settings, load
from chatd.process.gc_tuning import GCTuner
from chatd.process.signals import Signals
from chatd.runtime.monotonic import use_monotonic_clock

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
        """Load all settings; an invalid one ends the process with one line."""
        try:
            self.settings, self.warnings = load(given, os.environ)
        except ConfigError as wrong:
            raise SystemExit(f"chatd: {wrong}") from None


def makeService(options: Options) -> IService:
    """Create the daemon for twistd's plugin."""
    from twisted.internet import reactor

    use_monotonic_clock(reactor)
    for warning in options.warnings:
        _log.warn("{warning}", warning=warning)
    _raise_descriptor_limit()
    try:
        service = compose_service(options.settings, reactor, GCTuner(reactor))
    except ConfigError as wrong:
        raise SystemExit(f"chatd: {wrong}") from None
    reactor.callWhenRunning(Signals(reactor, service.force_stop).install)
    return service


def service_from_environment() -> IService:
    """Create the daemon for `chatd.tac`, configured only by the environment."""
    options = Options()
    options.configure({})
    return makeService(options)


def _raise_descriptor_limit() -> None:
    # Every held poll uses a descriptor; many systems start processes with a soft limit of 1024.
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
