"""Listening ports: opening them, their URLs, and whether they expose plain HTTP."""

from __future__ import annotations

import ipaddress
import re
from typing import Any, Final

import attrs
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IAddress, IListeningPort, IStreamServerEndpoint
from twisted.logger import Logger

from chatd.errors import StartError
from chatd.http.server import Server
from chatd.process.certificates import Certificates, UnusableCertificate

BACKLOG: Final = 4096
"""Connections that the kernel may queue until they are accepted; it limits this to somaxconn."""

_TLS: Final = re.compile(r"(haproxy:)?(ssl|tls):")

_log = Logger()


@attrs.frozen
class Listener:
    """An endpoint to listen on, its description as configured, and the server behind it."""

    description: str
    endpoint: IStreamServerEndpoint
    server: Server
    certificates: Certificates | None = None

    async def listen(self) -> IListeningPort:
        """Open the port; raises `StartError`."""
        try:
            port: IListeningPort = await self.endpoint.listen(self.server)
        except CannotListenError as error:
            raise self._start_error(_reason(error)) from None
        except OSError as error:
            raise self._start_error(error.strerror) from None
        except (OverflowError, ValueError) as error:
            raise self._start_error(error) from None
        _set_backlog(port)
        ended = None if self.certificates is None else self.certificates.ended_at()
        if ended is not None:
            _log.warn(
                "the certificate of {endpoint} was valid until {ended}: clients will refuse it",
                endpoint=self.description,
                ended=ended,
            )
        self.server.add_port(port)
        return port

    def reload_certificate(self) -> None:
        """Read the certificate again, if there is one, and log what came of it."""
        try:
            if self.certificates is not None and self.certificates.reload():
                _log.info("the certificate of {endpoint} is reloaded", endpoint=self.description)
        except UnusableCertificate as problem:
            _log.error(
                "the certificate of {endpoint} is not reloaded: {reason}",
                endpoint=self.description,
                reason=problem,
            )

    def url(self, address: IAddress) -> str:
        """The URL of the open port; the description where it has none, such as a Unix socket."""
        host: str | None = getattr(address, "host", None)
        if host is None:
            return self.description
        scheme = "https" if self.uses_tls else "http"
        return f"{scheme}://{f'[{host}]' if ':' in host else host}:{getattr(address, 'port', '')}"

    @property
    def uses_tls(self) -> bool:
        """Whether it encrypts."""
        return _TLS.match(self.description) is not None

    def is_exposed(self, address: IAddress) -> bool:
        """Whether other machines can reach the open port without TLS."""
        host: str | None = getattr(address, "host", None)
        return host is not None and not self.uses_tls and not _is_loopback(host)

    def _start_error(self, reason: object) -> StartError:
        return StartError(f"cannot listen on {self.description}: {reason}")


def accept_waiting(server: Server, port: Any) -> None:
    """Accept the connections that the kernel has: closing the port would reset them."""
    accept = getattr(port, "doRead", None)
    before = -1
    while accept is not None and server.connections > before:
        before = server.connections
        accept()


def _is_loopback(host: str) -> bool:
    ip = ipaddress.ip_address(host)
    mapped = ip.ipv4_mapped if ip.version == 6 else None
    return (mapped or ip).is_loopback


def _set_backlog(port: Any) -> None:
    # Endpoint strings default to 50, which a burst of reconnecting clients exceeds.
    # A second listen() on the same socket changes its backlog.
    socket = getattr(port, "socket", None)
    if socket is not None:
        socket.listen(BACKLOG)


def _reason(error: CannotListenError) -> str:
    return getattr(error.socketError, "strerror", None) or str(error.socketError)
