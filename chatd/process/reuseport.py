"""Several processes on one port: the kernel spreads the connections over them (SO_REUSEPORT)."""

from __future__ import annotations

from typing import Any

from twisted.internet.tcp import makeBinding


class ReusePortReactor:
    """A reactor whose TCP and TLS ports other processes of the same user may listen on too.

    It is for server endpoints, which have no option for that; everything else it leaves to the
    reactor.
    """

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reactor, name)

    def listenTCP(self, port: int, factory: Any, backlog: int = 50, interface: str = "") -> Any:
        """As `IReactorTCP` has it."""
        binding = makeBinding(interface, port, reuseAddress=True, reusePort=True)
        return self._reactor.listenTCP(binding, factory, backlog, interface)

    def listenSSL(
        self, port: int, factory: Any, context: Any, backlog: int = 50, interface: str = ""
    ) -> Any:
        """As `IReactorSSL` has it."""
        binding = makeBinding(interface, port, reuseAddress=True, reusePort=True)
        return self._reactor.listenSSL(binding, factory, context, backlog, interface)
