"""TLS endpoints whose certificate can be replaced while they listen."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from OpenSSL import SSL, crypto
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
        context = read_certificate(self._description)
        if (ended := ended_at(context)) is not None:
            raise UnusableCertificate(f"it was valid until {ended}")
        self._context = context
        return True

    def ended_at(self) -> datetime | None:
        """See `ended_at`; of the certificate in use."""
        return ended_at(self._context)


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


def ended_at(context: Any) -> datetime | None:
    """When the certificate of a context factory has expired; None if it has not, or is unknown."""
    certificate = getattr(context, "certificate", None)
    if certificate is None or not certificate.has_expired():
        return None
    ended: datetime = certificate.to_cryptography().not_valid_after_utc
    return ended


def reason_of(problem: Exception) -> str:
    """Why files of an endpoint cannot be read, in one line."""
    if isinstance(problem, OSError) and problem.filename is not None:
        return f"{problem.filename}: {problem.strerror}"
    if isinstance(problem, crypto.Error | SSL.Error):
        return "privateKey or certKey has no key or certificate in PEM that fits"
    return str(problem) or type(problem).__name__


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
    except Exception as problem:
        raise UnusableCertificate(reason_of(problem)) from None
    return recorder.context
