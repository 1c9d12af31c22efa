"""Metrics as a Prometheus server scrapes them."""

from __future__ import annotations

import pytest
from prometheus_client.parser import text_string_to_metric_families

import chatd
from chatd.metrics import CONTENT_TYPE, Metrics


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    """The value of a sample, None if there is none."""
    for family in text_string_to_metric_families(metrics.render().decode("utf-8")):
        for sample in family.samples:
            if sample.name == name and labels.items() <= sample.labels.items():
                return float(sample.value)
    return None


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


def test_requests_are_counted_by_method_route_and_status(metrics: Metrics) -> None:
    for _ in range(3):
        metrics.observe_request(b"GET", "/chats", 200, 0.002)
    metrics.observe_request(b"GET", "/chats", 404, 0.002)
    metrics.observe_request(b"POST", "/chats", 200, 0.002)
    name = "chatd_requests_total"
    assert value(metrics, name, method="GET", route="/chats", status="200") == 3
    assert value(metrics, name, method="GET", route="/chats", status="404") == 1
    assert value(metrics, name, method="POST", route="/chats", status="200") == 1
    metrics.observe_request(b"GET", "/users", 200, 3)
    # By route, whatever the method and the status.
    assert value(metrics, "chatd_request_seconds_count", route="/chats") == 5
    assert value(metrics, "chatd_request_seconds_bucket", route="/chats", le="0.001") == 0
    assert value(metrics, "chatd_request_seconds_bucket", route="/chats", le="0.0025") == 5
    assert value(metrics, "chatd_request_seconds_sum", route="/users") == 3


def test_polls_are_counted_by_outcome_and_seconds_held(metrics: Metrics) -> None:
    metrics.observe_poll("message", 0.3)
    metrics.observe_poll("timeout", 30)
    metrics.observe_poll("timeout", 30)
    assert value(metrics, "chatd_polls_total", outcome="timeout") == 2
    assert value(metrics, "chatd_polls_total", outcome="message") == 1
    assert value(metrics, "chatd_poll_hold_seconds_count") == 3
    assert value(metrics, "chatd_poll_hold_seconds_sum") == pytest.approx(60.3)


def test_batch_sizes_are_observed_by_verb(metrics: Metrics) -> None:
    observe = metrics.batch_observer("append")
    observe(3)
    observe(300)
    assert value(metrics, "chatd_batch_size_count", verb="append") == 2
    assert value(metrics, "chatd_batch_size_sum", verb="append") == 303


def test_store_calls_are_measured_by_verb(metrics: Metrics) -> None:
    metrics.store_observer("append")(0.003)
    metrics.count_store_error("append")
    assert value(metrics, "chatd_store_seconds_bucket", verb="append", le="0.005") == 1
    assert value(metrics, "chatd_store_errors_total", verb="append") == 1


def test_polls_woken_at_once_are_that_many_deliveries(metrics: Metrics) -> None:
    metrics.observe_delivery(0.02, 50)
    assert value(metrics, "chatd_delivery_seconds_count") == 50
    assert value(metrics, "chatd_delivery_seconds_sum") == pytest.approx(1)


def test_labelled_values_are_read_when_they_are_scraped(metrics: Metrics) -> None:
    depth = {"append": 1.0}
    metrics.add_labelled_gauge("chatd_queue_depth", "Queues", "queue", lambda: depth)
    metrics.add_labelled_counter("chatd_rate_limited", "Limits", "limit", lambda: {"send": 2.0})
    depth["append"] = 3
    assert value(metrics, "chatd_queue_depth", queue="append") == 3
    assert value(metrics, "chatd_rate_limited_total", limit="send") == 2


def test_wakeups_are_counted_by_source(metrics: Metrics) -> None:
    metrics.count_wakeups("bus", 2)
    metrics.count_wakeups("bus", 1)
    metrics.count_wakeups("resync", 4)
    metrics.count_wakeups("sweep", 0)
    assert value(metrics, "chatd_wakeups_total", source="bus") == 3
    assert value(metrics, "chatd_wakeups_total", source="resync") == 4
    assert value(metrics, "chatd_wakeups_total", source="sweep") == 0


def test_missed_wakeups_are_counted(metrics: Metrics) -> None:
    assert value(metrics, "chatd_sweep_found_total") == 0
    metrics.count_missed_wakeups(0)
    assert value(metrics, "chatd_sweep_found_total") == 0
    metrics.count_missed_wakeups(2)
    assert value(metrics, "chatd_sweep_found_total") == 2
    assert value(metrics, "chatd_wakeups_total", source="sweep") == 2


def test_the_lag_of_the_reactor_is_observed(metrics: Metrics) -> None:
    metrics.observe_lag(0.3)
    assert value(metrics, "chatd_reactor_lag_seconds_bucket", le="0.25") == 0
    assert value(metrics, "chatd_reactor_lag_seconds_bucket", le="0.5") == 1


def test_a_gauge_is_read_when_it_is_scraped(metrics: Metrics) -> None:
    held = [1]
    metrics.add_gauge("chatd_polls_held", "Held polls", lambda: len(held))
    assert value(metrics, "chatd_polls_held") == 1
    held.append(2)
    assert value(metrics, "chatd_polls_held") == 2


def test_the_version_and_process_metrics_are_included(metrics: Metrics) -> None:
    assert value(metrics, "chatd_build_info", version=chatd.__version__) == 1
    assert (value(metrics, "process_open_fds") or 0) > 0


def test_instances_do_not_share_a_registry() -> None:
    one, other = Metrics(), Metrics()
    one.observe_lag(1)
    assert value(other, "chatd_reactor_lag_seconds_count") == 0


def test_the_text_has_the_announced_format(metrics: Metrics) -> None:
    assert CONTENT_TYPE == b"text/plain; version=0.0.4; charset=utf-8"
    assert b"# TYPE chatd_requests_total counter" in metrics.render()
