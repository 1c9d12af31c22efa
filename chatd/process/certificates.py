"""TLS endpoints whose certificate can be replaced while they listen."""

from __future__ import annotations

from typing import Any

from OpenSSL.SSL import Context
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import serverFromString
from twisted.internet.interfaces import IOpenSSLContextFactory
from twisted.internet.protocol import Factory
from zope.interface import implementer


class UnusableCertificate(Exception):
    """Files of an endpoint that cannot be used; the text is one line."""


@implementer(IOpenSSLContextFactory)
class Certificates:
    """Wraps a reactor so that `reload` replaces the certificates of its `ssl:` endpoints.

    To be passed to `serverFromString` with the endpoint `description`, or one that contains it,
    such as `haproxy:ssl:...`. Everything else is delegated to the wrapped reactor. Connections keep
    the certificate that they were opened with.
    """

    def __init__(self, reactor: Any, description: str) -> None:
        self._reactor = reactor
        self._description = description
        self._context: Any = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reactor, name)

    def listenSSL(
        self, port: int, factory: Any, contextFactory: Any, backlog: int = 50, interface: str = ""
    ) -> Any:
        """See `IReactorSSL`."""
        self._context = contextFactory
        return self._reactor.listenSSL(port, factory, self, backlog, interface)

    def getContext(self) -> Context:
        """Twisted's context factory: called for each connection."""
        context: Context = self._context.getContext()
        return context

    def reload(self) -> bool:
        """Read the files again; False if the endpoint has none.

        Raises `UnusableCertificate`, and goes on with the former ones, if that fails.
        """
        if self._context is None:
            return False
        self._context = read_certificate(self._description)
        return True


class _Recorder:
    """Stands for a reactor; keeps the TLS context of what is to listen."""

    def __init__(self) -> None:
        self.context: Any = None

    def listenSSL(self, port: int, factory: Any, contextFactory: Any, **_: Any) -> object:
        self.context = contextFactory
        return object()

    def listenTCP(self, *_: Any, **__: Any) -> object:
        return object()

    listenUNIX = listenTCP
    adoptStreamPort = listenTCP


def read_certificate(description: str) -> Any:
    """The context factory of an endpoint, whose files have been read and fit; None without TLS.

    Its `certificate` is the certificate. Raises `UnusableCertificate`.
    """
    recorder = _Recorder()
    try:
        listening: Deferred[Any] = serverFromString(recorder, description).listen(Factory())
        listening.addErrback(lambda _: None)
        if recorder.context is not None:
            recorder.context.getContext()
    except OSError as problem:
        raise UnusableCertificate(f"{problem.filename}: {problem.strerror}") from None
    except Exception as problem:
        raise UnusableCertificate(str(problem) or type(problem).__name__) from None
    return recorder.context
