"""Sharing a port among processes."""

from __future__ import annotations

from typing import Any

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet.defer import maybeDeferred
from twisted.internet.endpoints import serverFromString
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IListeningPort
from twisted.internet.protocol import ServerFactory

from chatd.process.reuseport import ReusePortReactor


@ensureDeferred
async def test_a_port_can_be_opened_twice_only_if_both_share_it() -> None:
    from twisted.internet import reactor

    sharing = ReusePortReactor(reactor)
    ports: list[IListeningPort] = []
    first = serverFromString(sharing, "tcp:0:interface=127.0.0.1")
    ports.append(await first.listen(ServerFactory()))
    address: Any = ports[0].getHost()
    text = f"tcp:{address.port}:interface=127.0.0.1"
    ports.append(await serverFromString(sharing, text).listen(ServerFactory()))
    assert str(ports[1].getHost()) == str(address)
    with pytest.raises(CannotListenError):
        await serverFromString(reactor, text).listen(ServerFactory())
    for port in ports:
        await maybeDeferred(port.stopListening)


@ensureDeferred
async def test_tls_ports_are_shared_too() -> None:
    from twisted.internet import reactor
    from twisted.internet.ssl import CertificateOptions

    sharing = ReusePortReactor(reactor)
    ports = [sharing.listenSSL(0, ServerFactory(), CertificateOptions(), interface="127.0.0.1")]
    number = ports[0].getHost().port
    ports.append(
        sharing.listenSSL(number, ServerFactory(), CertificateOptions(), interface="127.0.0.1")
    )
    for port in ports:
        await port.stopListening()
