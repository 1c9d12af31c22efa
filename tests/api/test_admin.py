"""The operators' listener, and the health checks of both listeners."""

from __future__ import annotations

import pytest
from prometheus_client.parser import text_string_to_metric_families
from twisted.internet.defer import Deferred, fail

from tests.api.service import CHATS, Service


def test_metrics_are_for_operators_only(service: Service) -> None:
    response = service.get("/metrics", admin=True)
    assert response.status == 200
    assert response.header("Content-Type") == "text/plain; version=0.0.4; charset=utf-8"
    families = {family.name for family in text_string_to_metric_families(response.body.decode())}
    assert {"chatd_requests", "chatd_polls", "chatd_build_info", "chatd_sweep_found"} <= families
    service.get("/metrics").problem(404, "not_found")


def test_operators_have_no_api(service: Service) -> None:
    ann = service.new_user()
    ann.get(CHATS, admin=True).problem(404, "not_found")
    assert (
        service.request("OPTIONS", "/metrics", admin=True).header("Allow") == "GET, HEAD, OPTIONS"
    )
    service.request("POST", "/metrics", admin=True).problem(405, "method_not_allowed")
    assert service.request("HEAD", "/metrics", admin=True).body == b""


@pytest.mark.parametrize("admin", [False, True])
def test_a_running_process_is_healthy(service: Service, admin: bool) -> None:
    service.readiness.draining = True
    response = service.get("/healthz", admin=admin)
    assert (response.status, response.json) == (200, {"status": "ok"})


@pytest.mark.parametrize("admin", [False, True])
def test_a_process_is_ready_or_says_why_not(
    service: Service, monkeypatch: pytest.MonkeyPatch, admin: bool
) -> None:
    response = service.get("/readyz", admin=admin)
    assert (response.status, response.json) == (200, {"status": "ready"})
    service.readiness.draining = True
    service.system.bus.broken = "no wake-ups arrive"
    monkeypatch.setattr(service.system.store, "check", lambda: fail(OSError("the disk has failed")))
    response = service.get("/readyz", admin=admin)
    document = response.problem(503, "not_ready")
    assert document["reasons"] == [
        "draining",
        "no wake-ups arrive",
        "the store: the disk has failed",
    ]
    assert response.header("Cache-Control") == "no-store"


def test_a_store_that_does_not_answer_within_a_second_is_not_ready(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    checked: Deferred[None] = Deferred()
    monkeypatch.setattr(service.system.store, "check", lambda: checked)
    exchange = service.start_and_settle("GET", "/readyz", admin=True)
    assert exchange.held
    service.advance(1)
    [reason] = exchange.response.problem(503, "not_ready")["reasons"]
    assert "did not answer within 1 s" in reason
    checked.callback(None)
