"""Where a PostgreSQL is: libpq's URLs and keywords, with what a daemon needs added to them."""

from __future__ import annotations

from typing import Final
from urllib.parse import quote

import psycopg2
from msgspec import Struct
from psycopg2.extensions import make_dsn, parse_dsn

CONNECT_SECONDS: Final = 5.0

# A peer that is gone without a word is noticed within half a minute, whatever the system's own
# defaults (two hours on Linux) are; a parameter in the address wins.
_DEFAULTS: Final = {
    "client_encoding": "UTF8",
    "keepalives_idle": "10",
    "keepalives_interval": "5",
    "keepalives_count": "3",
    "tcp_user_timeout": "15000",
}


class Address(Struct, frozen=True):
    """A database server, or several of which one is the right one.

    `attempts` are connection strings, one a host in the order given, each to be given up after
    `connect_seconds`: libpq itself heeds no timeout when it does not block, and would wait for a
    silent first host for ever. `location` is for people and holds no password.
    """

    location: str
    attempts: tuple[str, ...]
    connect_seconds: float


def parse(text: str, application: str = "chatd") -> Address:
    """Read a libpq URL or `keyword=value` string; raises `ValueError` that does not repeat it.

    `application` names the connections in `pg_stat_activity` unless the address does. With
    several hosts and no `target_session_attrs`, the one that takes writes is looked for.
    """
    try:
        given: dict[str, str] = parse_dsn(text)
    except psycopg2.Error:
        # libpq quotes what it cannot read, which may be a password.
        raise ValueError("neither a PostgreSQL URL nor keyword=value pairs") from None
    hosts = _listed(given, "host")
    addresses = _listed(given, "hostaddr")
    ports = _listed(given, "port")
    count = max(len(hosts), len(addresses), 1)
    if count > 1:
        given = {"target_session_attrs": "read-write", **given}
    if len(ports) not in (0, 1, count) or (hosts and addresses and len(hosts) != len(addresses)):
        raise ValueError("as many ports and addresses as hosts, please, or one port for all")
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
    # A timeout of 0 is "none" to libpq; a daemon wants one all the same.
    return Address(_location(given, hosts or addresses, ports), tuple(attempts),
                   seconds if seconds > 0 else CONNECT_SECONDS)  # fmt: skip


def _listed(given: dict[str, str], name: str) -> list[str]:
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
