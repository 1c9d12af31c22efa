"""Connects to one of the servers of a NATS cluster."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from twisted.internet.defer import CancelledError, Deferred, TimeoutError
from twisted.internet.endpoints import HostnameEndpoint, connectProtocol
from twisted.internet.error import ConnectError, DNSLookupError
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.ssl import optionsForClientTLS

from chatd.nats.address import Address, Server, parse_server
from chatd.nats.protocol import Handler, Info, NatsError, NatsProtocol

CONNECT_SECONDS: Final = 1.0
"""How long a server may take until it has answered the first PING."""
MAX_LEARNED: Final = 100
"""Servers that are known besides those of the address."""


class Connector:
    """Makes connections to the servers of an address and those that they tell of.

    `endpoint` returns the endpoint of a server. The server that was used last is tried last.
    """

    def __init__(
        self,
        address: Address,
        reactor: Any,
        random: Callable[[], float],
        version: str,
        endpoint: Callable[[Server], IStreamClientEndpoint] | None = None,
    ) -> None:
        self._address = address
        self._reactor = reactor
        self._version = version
        self._endpoint = endpoint or (
            lambda server: HostnameEndpoint(
                reactor, server.host, server.port, timeout=CONNECT_SECONDS
            )
        )
        # In random order, so that processes spread evenly over the servers.
        self._servers = sorted(address.servers, key=lambda _: random())
        self._learned: set[Server] = set()
        self._attempt: Deferred[Any] | None = None
        self._is_stopped = False

    async def connect(self, handler: Handler) -> NatsProtocol:
        """Try the servers in order; raises `NatsError` with the reason of the last one."""
        problem = "stopped"
        for server in tuple(self._servers):
            if self._is_stopped:
                break
            self._servers.remove(server)
            self._servers.append(server)
            try:
                return await self._connect(server, handler)
            except NatsError as error:
                problem = f"{server}: {error}"
        raise NatsError(problem)

    def learn(self, info: Info) -> None:
        """Also use the servers that a server has told of."""
        for text in info.connect_urls:
            try:
                server = parse_server(text)
            except ValueError:
                continue
            if server not in self._servers and len(self._learned) < MAX_LEARNED:
                self._learned.add(server)
                # Before the one that is used.
                self._servers.insert(-1, server)

    def stop(self) -> None:
        """Give up the attempt that is under way and make no others."""
        self._is_stopped = True
        if self._attempt is not None:
            self._attempt.cancel()

    async def _connect(self, server: Server, handler: Handler) -> NatsProtocol:
        protocol = NatsProtocol(
            self._address,
            handler,
            lambda transport: self._start_tls(server, transport),
            self._version,
        )
        try:
            await self._within(connectProtocol(self._endpoint(server), protocol))
        except (ConnectError, DNSLookupError, OSError, TimeoutError, CancelledError) as error:
            raise NatsError(_reason(error)) from None
        try:
            await self._within(protocol.ready)
        except (TimeoutError, CancelledError) as error:
            protocol.abort(_reason(error))
            raise NatsError(_reason(error)) from None
        return protocol

    async def _within(self, attempt: Deferred[Any]) -> None:
        self._attempt = attempt.addTimeout(CONNECT_SECONDS, self._reactor)
        try:
            await self._attempt
        finally:
            self._attempt = None

    def _start_tls(self, server: Server, transport: Any) -> None:
        # Servers tell of each other by address, which no certificate may name.
        named = server if server in self._address.servers else self._address.servers[0]
        transport.startTLS(optionsForClientTLS(named.host))


def _reason(error: BaseException) -> str:
    if isinstance(error, TimeoutError):
        return f"no answer within {CONNECT_SECONDS:g} s"
    if isinstance(error, CancelledError):
        return "stopped"
    return (str(error).strip() or type(error).__name__).splitlines()[0]
