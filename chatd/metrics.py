"""What a process counts, in Prometheus terms; no label ever names a user."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info
from prometheus_client.exposition import generate_latest
from prometheus_client.process_collector import ProcessCollector

from chatd import __version__

CONTENT_TYPE: Final = b"text/plain; version=0.0.4; charset=utf-8"

_SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5)
_HOLD_SECONDS: Final = (0.1, 0.5, 1, 2.5, 5, 10, 20, 30, 45, 55)
_SIZES: Final = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)


class Metrics:
    """The metrics of one process, in a registry of their own."""

    def __init__(self) -> None:
        registry = self._registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        Info("chatd_build", "The running version", registry=registry).info({"version": __version__})
        self._requests = Counter(
            "chatd_requests_total",
            "Requests answered, without held polls, by route and status",
            ["method", "route", "status"],
            registry=registry,
        )
        self._request_seconds = Histogram(
            "chatd_request_seconds",
            "Seconds from the end of a request to its answer, held polls excepted",
            buckets=_SECONDS,
            registry=registry,
        )
        self._polls = Counter(
            "chatd_polls_total",
            "Polls that asked to wait, by outcome",
            ["outcome"],
            registry=registry,
        )
        self._hold_seconds = Histogram(
            "chatd_poll_hold_seconds",
            "Seconds that polls were held",
            buckets=_HOLD_SECONDS,
            registry=registry,
        )
        self._batch_sizes = Histogram(
            "chatd_batch_size",
            "Items in one call of the store",
            ["verb"],
            buckets=_SIZES,
            registry=registry,
        )
        self._woken = Counter(
            "chatd_wakeups_total", "Held polls woken, by source", ["source"], registry=registry
        )
        self._swept = Counter(
            "chatd_sweep_found_total",
            "Held polls that had missed a wake-up: above 0 there is a bug",
            registry=registry,
        )
        self._refused = Counter(
            "chatd_refused_total", "Requests refused for load, by code", ["code"], registry=registry
        )
        self._lag = Histogram(
            "chatd_reactor_lag_seconds",
            "How late the reactor ran a timer",
            buckets=_SECONDS,
            registry=registry,
        )
        self._children: dict[tuple[str, str, int], Counter] = {}
        self._from_bus = self._woken.labels("bus")

    def gauge(self, name: str, text: str, read: Callable[[], float]) -> None:
        """Add a gauge that is read when it is asked for."""
        Gauge(name, text, registry=self._registry).set_function(read)

    def request(self, method: str, route: str, status: int, seconds: float) -> None:
        """A request was answered without waiting for a message."""
        key = (method, route, status)
        child = self._children.get(key)
        if child is None:
            child = self._children[key] = self._requests.labels(method, route, str(status))
        child.inc()
        self._request_seconds.observe(seconds)

    def poll(self, outcome: str, seconds: float) -> None:
        """A poll that asked to wait came to its end after being held for some seconds."""
        self._polls.labels(outcome).inc()
        self._hold_seconds.observe(seconds)

    def batch(self, verb: str) -> Callable[[float], None]:
        """The observer of the batch sizes of one verb of the store."""
        observe: Callable[[float], None] = self._batch_sizes.labels(verb).observe
        return observe

    def woken(self, source: str, polls: int) -> None:
        """Held polls were woken by the bus, a resynchronisation or the sweep."""
        if polls:
            (self._from_bus if source == "bus" else self._woken.labels(source)).inc(polls)

    def swept(self, found: int) -> None:
        """The sweep found polls that had missed a wake-up."""
        self._swept.inc(found)
        self.woken("sweep", found)

    def refused(self, code: str) -> None:
        """A request was refused for load or by a rate limit."""
        self._refused.labels(code).inc()

    def lag(self, seconds: float) -> None:
        """The reactor ran a timer that much too late."""
        self._lag.observe(seconds)

    def render(self) -> bytes:
        """All metrics in the text format of Prometheus."""
        return generate_latest(self._registry)
