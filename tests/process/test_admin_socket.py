"""The administrator's socket of a daemon."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from twisted.internet.testing import MemoryReactor, StringTransport

from chatd.domain.administration import Administration
from chatd.errors import StoreUnavailable
from chatd.process.admin_socket import AdminProtocol, AdminSocket
from tests.conftest import LoggedFailures
from tests.doubles import System, composed


def exchange(system: System, *lines: bytes) -> list[dict[str, object]]:
    """Send lines and return the answers."""
    protocol = AdminProtocol(Administration(system.store, system.bus))
    transport = StringTransport()
    protocol.makeConnection(transport)  # type: ignore[no-untyped-call]
    protocol.dataReceived(b"".join(line + b"\n" for line in lines))  # type: ignore[no-untyped-call]
    system.settle()
    return [json.loads(line) for line in transport.value().splitlines()]


def test_each_line_is_answered(tmp_path: Path) -> None:
    with composed(tmp_path) as system:
        ann = system.account("ann")
        answers = exchange(
            system,
            b'{"type":"ShowUser","username":"ann"}',
            b'{"type":"ShowUser","username":"bob"}',
            b"nonsense",
            b'{"type":"Unheard"}',
        )
    replies = [answer["reply"] for answer in answers]
    assert isinstance(replies[0], dict)
    assert replies[0]["users"][0]["account"]["id"] == ann.id
    assert replies[1:] == [None] * 3
    codes = [answer["refusal"] and answer["refusal"]["code"] for answer in answers]  # type: ignore[index]
    assert codes == [None, "user_not_found", "invalid_request", "invalid_request"]


def test_a_fault_is_logged_and_answered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, logged_failures: LoggedFailures
) -> None:
    with composed(tmp_path) as system:
        request = b'{"type":"ListUsers","after":0,"limit":1}'
        for error, code in [
            (StoreUnavailable("the disk is full", 1), "store_unavailable"),
            (RuntimeError("secret"), "internal_error"),
        ]:

            def fail(*_: object, error: Exception = error) -> None:
                raise error

            monkeypatch.setattr(system.store.admin, "accounts", fail)
            [answer] = exchange(system, request)
            assert answer["refusal"]["code"] == code  # type: ignore[index]
            assert "secret" not in str(answer)
    assert len(logged_failures.flush(RuntimeError)) == 1


def test_an_answer_to_a_client_that_has_left_is_dropped(tmp_path: Path) -> None:
    with composed(tmp_path) as system:
        protocol = AdminProtocol(Administration(system.store, system.bus))
        transport = StringTransport()
        protocol.makeConnection(transport)  # type: ignore[no-untyped-call]
        protocol.connected = 0
        protocol.lineReceived(b"nonsense")
        assert transport.value() == b""


def test_a_daemon_runs_without_a_socket(tmp_path: Path) -> None:
    """For example because something else has its name."""
    path = tmp_path / "chatd.db.admin"
    path.mkdir()
    with composed(tmp_path / "system") as system:
        administration = Administration(system.store, system.bus)
        socket = AdminSocket(str(path), administration, MemoryReactor())
        socket.start()
        system.run(socket.stop())
    assert path.is_dir()
