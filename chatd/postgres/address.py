"""Addresses of PostgreSQL servers: libpq URLs and keyword strings, with a daemon's defaults."""

from __future__ import annotations

from typing import Final
from urllib.parse import quote

import psycopg2
from msgspec import Struct
from psycopg2.extensions import make_dsn, parse_dsn

CONNECT_SECONDS: Final = 5.0

# Dead peers are detected within half a minute; the default on Linux is two hours. Parameters in
# the address take precedence.
_DEFAULTS: Final = {
    "client_encoding": "UTF8",
    "keepalives_idle": "10",
    "keepalives_interval": "5",
    "keepalives_count": "3",
    "tcp_user_timeout": "15000",
}


class Address(Struct, frozen=True):
    """A database server, or several hosts of which one is the primary.

    `attempts` are connection strings, one per host in the given order. Each attempt has to be
    aborted after `connect_seconds`, because libpq ignores timeouts in non-blocking mode and would
    wait for an unresponsive first host forever. `location` is for display and has no password.
    """

    location: str
    attempts: tuple[str, ...]
    connect_seconds: float


def parse(text: str, application: str = "chatd") -> Address:
    """Parse a libpq URL or `keyword=value` string; raises `ValueError` without quoting it.

    `application` is the name of the connections in `pg_stat_activity` unless the address has one.
    With several hosts, `target_session_attrs` defaults to `read-write`.
    """
    try:
        given: dict[str, str] = parse_dsn(text)
    except psycopg2.Error:
        # libpq quotes the part that it cannot parse, which may be a password.
        raise ValueError("neither a PostgreSQL URL nor keyword=value pairs") from None
    hosts = _split(given, "host")
    addresses = _split(given, "hostaddr")
    ports = _split(given, "port")
    count = max(len(hosts), len(addresses), 1)
    if count > 1:
        given = {"target_session_attrs": "read-write", **given}
    if len(ports) not in (0, 1, count) or (hosts and addresses and len(hosts) != len(addresses)):
        raise ValueError("give as many ports and addresses as hosts, or one port for all")
    try:
        seconds = float(given.get("connect_timeout", CONNECT_SECONDS))
    except ValueError:
        raise ValueError("connect_timeout is not a number of seconds") from None
    common = {**_DEFAULTS, "application_name": application, **given}
    attempts = []
    for number in range(count):
        one = dict(common)
        for name, values in (("host", hosts), ("hostaddr", addresses)):
            if values:
                one[name] = values[number]
        if ports:
            one["port"] = ports[number % len(ports)]
        attempts.append(make_dsn(**one))
    return Address(
        location=_location(given, hosts or addresses, ports),
        attempts=tuple(attempts),
        # 0 means no timeout to libpq, but a daemon needs one.
        connect_seconds=seconds if seconds > 0 else CONNECT_SECONDS,
    )


def _split(given: dict[str, str], name: str) -> list[str]:
    text = given.get(name, "")
    return text.split(",") if text else []


def _location(given: dict[str, str], hosts: list[str], ports: list[str]) -> str:
    user = f"{quote(given['user'])}@" if "user" in given else ""
    database = quote(given.get("dbname", ""))
    if any(host.startswith(("/", "@")) for host in hosts):
        return f"postgresql://{user}/{database}?host={','.join(hosts)}"
    named = []
    for number, host in enumerate(hosts):
        port = ports[number % len(ports)] if ports else ""
        bracketed = f"[{host}]" if ":" in host else host
        named.append(f"{bracketed}:{port}" if port else bracketed)
    return f"postgresql://{user}{','.join(named)}/{database}"
