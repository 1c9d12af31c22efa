"""`chatd doctor`, on the real API in memory with what proxies do in between."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from twisted.internet import error
from twisted.internet.defer import Deferred, fail
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.web.client import ResponseFailed

from chatd.cli.doctor import Diagnosis, Doctor, Hold, report
from chatd.cli.errors import CommandError
from tests.client.test_real_service import Service, serving
from tests.doubles import result_of


class Proxy:
    """A proxy that cuts what is silent for `cut` seconds, and may buffer what does not end."""

    def __init__(self, service: Service, cut: float = 1000.0, buffers: bool = False) -> None:
        self._http = service.http
        self._clock = service.system.clock
        self._cut = cut
        self._buffers = buffers
        self.status: int | None = None

    def request(self, method: str, url: str, **options: Any) -> Deferred[Any]:
        if self._buffers and options["headers"].get("Accept") == "application/x-ndjson":
            return Deferred(lambda cancelled: None)
        seen: Deferred[Any] = Deferred(lambda _: answered.cancel())
        timer = self._clock.callLater(self._cut, self._close, seen)

        def pass_on(result: object) -> None:
            if timer.active():
                timer.cancel()
            if not seen.called:
                seen.callback(result)

        answered: Deferred[Any] = self._http.request(method, url, **options)
        answered.addBoth(pass_on)
        return seen

    def _close(self, seen: Deferred[Any]) -> None:
        """Close the connection that an answer is awaited on."""
        seen.errback(ResponseFailed([Failure(error.ConnectionLost())]))


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    with serving(tmp_path, "poll") as running:
        yield running


def examine(service: Service, http: Any, ahead: float = 0.0) -> Diagnosis:
    """Examine the service through `http`, with a clock that is that much ahead."""
    client = service.client("ann")
    token = client._caller.token
    assert token is not None
    doctor = Doctor(
        http,
        service.system.clock,
        lambda: service.system.now() / 1_000_000 + ahead,
        "http://chat.example",
        token,
    )
    examining = service.start(doctor.examine())
    service.wait_for(examining)
    found: Diagnosis = result_of(examining)
    return found


def test_all_is_well(service: Service) -> None:
    found = examine(service, Proxy(service))
    assert [(hold.wait, hold.survived, hold.seconds) for hold in found.holds] == [
        (wait, True, wait) for wait in (5, 25, 35, 55)
    ]
    assert (found.longest_hold, found.buffered) == (55, False)
    assert found.http_version == "HTTP/1.1"
    assert found.server is not None
    assert found.client_address is not None
    text = "\n".join(report(found))
    assert "longest hold    55 s" in text
    assert "poll of 55 s    held after 55 s" in text
    assert "first bytes after 0.000 s, not buffered" in text


def test_a_proxy_that_cuts_is_found(service: Service) -> None:
    found = examine(service, Proxy(service, cut=30.0))
    assert found.longest_hold == 25
    assert [hold.survived for hold in found.holds] == [True, True, False, False]
    assert found.holds[-1].seconds == 30.0
    assert found.problems[-1] == (
        "polls are cut: let the proxy wait for 70 s, or clients wait for 25 s only"
    )


def test_a_proxy_that_buffers_is_found(service: Service) -> None:
    found = examine(service, Proxy(service, buffers=True))
    assert found.buffered
    assert found.stream == "no first bytes in 5 s"
    assert found.longest_hold == 55
    assert any("buffers streams" in problem for problem in found.problems)
    assert "no first bytes in 5 s, buffered" in "\n".join(report(found))


class FirstBytes(Protocol):
    """Passes only the first bytes of a body on."""

    def __init__(self, receiver: Any) -> None:
        self._receiver = receiver
        self._passed = False

    def connectionMade(self) -> None:
        self._receiver.makeConnection(self.transport)

    def dataReceived(self, data: bytes) -> None:
        if not self._passed:
            self._passed = True
            self._receiver.dataReceived(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._receiver.connectionLost(reason)


class KeepsBack(Proxy):
    """A proxy that keeps what follows the beginning of a body back."""

    def request(self, method: str, url: str, **options: Any) -> Deferred[Any]:
        def wrap(response: Any) -> Any:
            deliver = response.deliverBody
            response.deliverBody = lambda receiver: deliver(FirstBytes(receiver))
            return response

        answered = super().request(method, url, **options)
        streams = options["headers"].get("Accept") == "application/x-ndjson"
        return answered.addCallback(wrap) if streams else answered


def test_a_stream_of_which_only_the_beginning_comes_is_buffered(service: Service) -> None:
    found = examine(service, KeepsBack(service))
    assert found.stream == "no further bytes in 20 s"
    assert found.buffered


def test_clocks_that_differ_are_found(service: Service) -> None:
    well = examine(service, Proxy(service))
    assert well.clock_skew is not None
    wrong = Diagnosis(**{**_fields(well), "clock_skew": -60.0})
    assert "clock           -60.0 s from here" in report(wrong)


def _fields(found: Diagnosis) -> dict[str, Any]:
    return {name: getattr(found, name) for name in found.__struct_fields__}


def test_a_service_that_refuses_is_told(service: Service) -> None:
    client = service.client("ann")
    assert client._caller.token is not None
    doctor = Doctor(Proxy(service), service.system.clock, lambda: 0.0, "http://chat.example", "x")
    examining = service.start(doctor.examine())
    with pytest.raises(CommandError, match="answers 401"):
        result_of(examining)


def test_what_is_not_known_is_said() -> None:
    unknown = Diagnosis(
        *("http://h", "HTTP/1.1", None, None, 0.0, None, None, "HTTP 502", True),
        *((Hold(5, False, 0.1, "HTTP 504"),), 0, ("polls are cut",)),
    )
    text = "\n".join(report(unknown))
    assert "clock           unknown" in text
    assert "too old to tell" in text
    assert "poll of 5 s     HTTP 504 after 0.1 s" in text


def test_an_unreachable_service(service: Service) -> None:
    class Nothing:
        def request(self, *_: Any, **__: Any) -> Deferred[Any]:
            return fail(error.ConnectionRefusedError())

    doctor = Doctor(Nothing(), service.system.clock, lambda: 0.0, "http://chat.example", "x")
    examining = service.start(doctor.examine())
    with pytest.raises(Exception, match="refused"):
        result_of(examining)
