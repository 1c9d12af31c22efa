"""Certificates of TLS endpoints are read, checked and replaced."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from OpenSSL.SSL import Context
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import serverFromString
from twisted.internet.protocol import Factory
from twisted.internet.testing import MemoryReactor

from chatd.process.certificates import Certificates, UnusableCertificate, read_certificate
from chatd.process.listeners import Listener
from tests.doubles import logged, result_of
from tests.integration.certificate import write_certificate

# Twisted makes its contexts so.
pytestmark = pytest.mark.filterwarnings("ignore:Passing pyOpenSSL:DeprecationWarning")


@pytest.fixture
def pem(tmp_path: Path) -> Path:
    path = tmp_path / "server.pem"
    write_certificate(path)
    return path


@pytest.mark.parametrize("prefix", ["", "haproxy:"])
def test_new_connections_get_the_new_certificate(pem: Path, prefix: str) -> None:
    endpoint = f"{prefix}ssl:0:privateKey={pem}"
    certificates = Certificates(MemoryReactor(), endpoint)
    result_of(serverFromString(certificates, endpoint).listen(Factory()))
    first = certificates.getContext()
    assert isinstance(first, Context)
    assert certificates.getContext() is first
    write_certificate(pem)
    assert certificates.getContext() is first
    assert certificates.reload()
    assert certificates.getContext() is not first


def test_the_former_certificate_is_kept_if_the_new_one_is_unusable(pem: Path) -> None:
    endpoint = f"ssl:0:privateKey={pem}"
    certificates = Certificates(MemoryReactor(), endpoint)
    result_of(serverFromString(certificates, endpoint).listen(Factory()))
    first = certificates.getContext()
    pem.write_text("nonsense")
    with pytest.raises(UnusableCertificate):
        certificates.reload()
    pem.unlink()
    with pytest.raises(UnusableCertificate, match=f"^{pem}: No such file or directory$"):
        certificates.reload()
    assert certificates.getContext() is first


def test_the_former_certificate_is_kept_if_the_new_one_has_expired(pem: Path) -> None:
    endpoint = f"ssl:0:privateKey={pem}"
    certificates = Certificates(MemoryReactor(), endpoint)
    result_of(serverFromString(certificates, endpoint).listen(Factory()))
    first = certificates.getContext()
    assert certificates.ended_at() is None
    write_certificate(pem, days=-1)
    with pytest.raises(UnusableCertificate, match=r"^it was valid until 20"):
        certificates.reload()
    assert certificates.getContext() is first


def test_an_expired_certificate_is_told_when_the_port_opens(pem: Path) -> None:
    write_certificate(pem, days=-1)
    endpoint = f"ssl:0:privateKey={pem}"
    certificates = Certificates(MemoryReactor(), endpoint)
    server: Any = SimpleNamespace(add_port=lambda _: None, doStart=lambda: None)
    listener = Listener(endpoint, serverFromString(certificates, endpoint), server, certificates)
    [line] = logged(lambda: result_of(Deferred.fromCoroutine(listener.listen())))
    assert line.startswith(f"the certificate of {endpoint} was valid until 20")


def test_nonsense_in_place_of_a_certificate_is_said_plainly(pem: Path) -> None:
    pem.write_text("nonsense")
    with pytest.raises(UnusableCertificate, match=r"^privateKey or certKey has no key or"):
        read_certificate(f"ssl:0:privateKey={pem}")


def test_an_endpoint_without_tls_has_nothing_to_reload() -> None:
    for endpoint in ("tcp:0", "haproxy:tcp:0", "unix:x"):
        certificates = Certificates(MemoryReactor(), endpoint)
        result_of(serverFromString(certificates, endpoint).listen(Factory()))
        assert not certificates.reload()
        assert read_certificate(endpoint) is None


def test_a_key_that_does_not_fit_is_unusable(tmp_path: Path, pem: Path) -> None:
    other = tmp_path / "other.pem"
    write_certificate(other, key=False)
    with pytest.raises(UnusableCertificate, match="keys do not match"):
        read_certificate(f"ssl:0:privateKey={pem}:certKey={other}")
