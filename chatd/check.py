"""`chatd check-config` and `--check`: what a daemon with these settings would do.

Nothing is changed: no port is opened, no file is created and no schema is migrated.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final

import attrs

from chatd import __version__
from chatd.compose.databases import describe_database
from chatd.compose.service import compose_service
from chatd.config import ConfigError, Settings
from chatd.process.certificates import UnusableCertificate, ended_at, read_certificate
from chatd.process.listeners import Listener
from chatd.process.supervisor import Supervisor, worker_settings

_SYSTEMD: Final = re.compile(r"(haproxy:)?systemd:domain=(INET6?|UNIX):(name=[^:=]+|index=[0-9]+)")


def check(settings: Settings, reactor: Any) -> list[str]:
    """Lines that say what would be done; raises `ConfigError` or `StartError`.

    Sockets that systemd passes are there only when it starts the daemon, so of their endpoints only
    the text is checked.
    """
    passed = [text for text in settings.listen if _is_passed("listen", text)]
    admin_passed = settings.admin is not None and _is_passed("admin", settings.admin)
    opened = attrs.evolve(
        settings,
        # An endpoint is needed, which is not opened here.
        listen=tuple(text for text in settings.listen if text not in passed) or ("tcp:0",),
        admin=None if admin_passed else settings.admin,
    )
    service = compose_service(opened, reactor)
    workers = settings.workers
    if isinstance(service, Supervisor):
        service = compose_service(worker_settings(opened, 1), reactor)
        assert not isinstance(service, Supervisor)
    lines = [f"chatd {__version__} would run in {_processes(workers)}"]
    lines += (f"listen on {text}, a socket that systemd passes" for text in passed)
    if len(passed) < len(settings.listen):
        lines += _described("listen", service.public)
    lines += _described("admin", service.admin)
    if admin_passed:
        lines.append(f"admin on {settings.admin}, a socket that systemd passes")
    lines.append(describe_database(settings))
    return lines


def _processes(workers: int) -> str:
    return "one process" if workers == 1 else f"{workers} workers and their supervisor"


def _is_passed(option: str, text: str) -> bool:
    if not text.startswith(("systemd:", "haproxy:systemd:")):
        return False
    if _SYSTEMD.fullmatch(text) is None:
        raise ConfigError(f"{option}: {text!r} is not systemd:domain=INET:name=NAME or :index=N")
    return True


def _described(option: str, listeners: Any) -> Iterator[str]:
    listener: Listener
    for listener in listeners:
        text = f"{option} on {listener.description}"
        if listener.uses_tls:
            try:
                context = read_certificate(listener.description)
            except UnusableCertificate as problem:
                raise ConfigError(f"{option}: {listener.description}: {problem}") from None
            certificate = getattr(context, "certificate", None)
            if certificate is not None:
                ends = certificate.to_cryptography().not_valid_after_utc
                if ended_at(context) is not None:
                    raise ConfigError(
                        f"{option}: {listener.description}: the certificate is valid until {ends}"
                    )
                text += f", whose certificate is valid until {ends:%Y-%m-%d}"
        yield text
