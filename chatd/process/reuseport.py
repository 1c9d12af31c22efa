"""Several processes on one port (SO_REUSEPORT): the kernel distributes the connections."""

from __future__ import annotations

from typing import Any

from twisted.internet.tcp import makeBinding


class ReusePortReactor:
    """Wraps a reactor so that its TCP and TLS ports may be opened by several processes of a user.

    To be passed to server endpoints, which have no option for this. Everything else is delegated
    to the wrapped reactor.
    """

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reactor, name)

    def listenTCP(self, port: int, factory: Any, backlog: int = 50, interface: str = "") -> Any:
        """See `IReactorTCP`."""
        binding = makeBinding(interface, port, reuseAddress=True, reusePort=True)
        return self._reactor.listenTCP(binding, factory, backlog, interface)

    def listenSSL(
        self, port: int, factory: Any, context: Any, backlog: int = 50, interface: str = ""
    ) -> Any:
        """See `IReactorSSL`."""
        binding = makeBinding(interface, port, reuseAddress=True, reusePort=True)
        return self._reactor.listenSSL(binding, factory, context, backlog, interface)
