"""Addresses of NATS servers."""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import unquote

from msgspec import Struct

DEFAULT_PORT: Final = 4222
DEFAULT_PREFIX: Final = "chatd"

_URL: Final = re.compile(
    r"(?P<scheme>nats|tls)://(?:(?P<login>[^@/?#]*)@)?(?P<servers>[^@/?#]+)"
    r"(?:/(?P<prefix>[^?#]*))?"
)
_SERVER: Final = re.compile(
    r"(?:\[(?P<v6>[0-9A-Fa-f.]*:[0-9A-Fa-f:.]*)\]|(?P<host>[^\[\]:\s]+))"
    r"(?::(?P<port>[0-9]{1,5}))?"
)
_PREFIX: Final = re.compile(r"[A-Za-z0-9_-]{1,32}")


class Server(Struct, frozen=True):
    """The host and port of one server."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class Address(Struct, frozen=True):
    """Servers of one NATS cluster, and how to log in to them.

    Without `tls`, TLS is used if the server requires it. All subjects begin with `prefix`.
    """

    servers: tuple[Server, ...]
    tls: bool = False
    user: str | None = None
    password: str | None = None
    token: str | None = None
    prefix: str = DEFAULT_PREFIX

    @property
    def location(self) -> str:
        """Where the servers are, for display, without the login."""
        scheme = "tls" if self.tls else "nats"
        return f"{scheme}://{','.join(map(str, self.servers))}"

    def __repr__(self) -> str:
        return f"Address({self.location!r})"


def parse(text: str) -> Address:
    """Parse `nats://[LOGIN@]HOST[:PORT],...[/PREFIX]`; raises `ValueError` without quoting it.

    `tls://` insists on TLS. The login is `USER:PASSWORD` or a token, percent-encoded. The scheme
    may be repeated before each host.
    """
    scheme = text.partition("://")[0]
    found = _URL.fullmatch(text.replace(f",{scheme}://", ","))
    if found is None:
        raise ValueError("not nats://HOST:PORT,... or tls://HOST:PORT,...")
    user = password = token = None
    if (login := found["login"]) is not None:
        name, colon, secret = login.partition(":")
        if not name or (colon and not secret):
            raise ValueError("before the @ there is neither USER:PASSWORD nor a token")
        if colon:
            user, password = unquote(name), unquote(secret)
        else:
            token = unquote(name)
    prefix = found["prefix"] or DEFAULT_PREFIX
    if not _PREFIX.fullmatch(prefix):
        raise ValueError("the prefix after the / is not 1 to 32 letters, digits, - and _")
    servers = tuple(dict.fromkeys(map(parse_server, found["servers"].split(","))))
    return Address(servers, found["scheme"] == "tls", user, password, token, prefix)


def parse_server(text: str) -> Server:
    """Parse `HOST[:PORT]`; raises `ValueError` without quoting it."""
    found = _SERVER.fullmatch(text)
    if found is None:
        raise ValueError("one of the servers is not HOST:PORT")
    port = int(found["port"] or DEFAULT_PORT)
    if not 0 < port < 65536:
        raise ValueError("one of the ports is not a number from 1 to 65535")
    return Server(found["v6"] or found["host"], port)
