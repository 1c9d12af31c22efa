"""Prometheus metrics of one process; no label ever identifies a user.

Everything is counted in the reactor thread, several times per request, so the counters are plain
numbers instead of those of prometheus-client, which take a lock. They are turned into its metric
families when they are scraped.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final

from prometheus_client import CollectorRegistry
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
)
from prometheus_client.exposition import generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

from chatd import __version__

CONTENT_TYPE: Final = b"text/plain; version=0.0.4; charset=utf-8"

_SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5)
_HOLD_SECONDS: Final = (0.1, 0.5, 1, 2.5, 5, 10, 20, 30, 45, 55)
_SIZES: Final = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)


Read = Callable[[], Mapping[str, float]]
"""Reads the values of a metric by those of its label."""
Family = GaugeMetricFamily | CounterMetricFamily


class Histogram:
    """Counts of observations by bucket, and their sum."""

    __slots__ = ("_bounds", "_counts", "_sum")

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0

    def observe(self, value: float, times: int = 1) -> None:
        """Add an observation, or several of the same value."""
        self._counts[bisect_left(self._bounds, value)] += times
        self._sum += value * times

    @property
    def count(self) -> int:
        """The number of observations."""
        return sum(self._counts)

    def add(self, other: Histogram) -> None:
        """Add the observations of another histogram with the same bounds."""
        self._counts = [mine + its for mine, its in zip(self._counts, other._counts, strict=True)]
        self._sum += other._sum

    def buckets(self) -> tuple[list[tuple[str, float]], float]:
        """Cumulative counts by upper bound, and the sum, as `HistogramMetricFamily` takes them."""
        total = 0
        buckets = []
        for bound, count in zip((*self._bounds, "+Inf"), self._counts, strict=True):
            total += count
            buckets.append((str(bound), float(total)))
        return buckets, self._sum


class Metrics(Collector):
    """The metrics of one process, in a registry that no other instance shares."""

    def __init__(self) -> None:
        self._requests: dict[tuple[bytes, str, int], Histogram] = {}
        self._refusals: Counter[str] = Counter()
        self._polls: Counter[str] = Counter()
        self._hold_seconds = Histogram(_HOLD_SECONDS)
        self._batch_sizes: dict[str, Histogram] = {}
        self._store_seconds: dict[str, Histogram] = {}
        self._store_errors: Counter[str] = Counter()
        self._delivery_seconds = Histogram(_SECONDS)
        self._wakeups: Counter[str] = Counter({"bus": 0, "sweep": 0})
        self._missed_wakeups = 0
        self._changed_messages = 0
        self._lag = Histogram(_SECONDS)
        self._gauges: list[tuple[str, str, Callable[[], float]]] = []
        self._counters: list[tuple[str, str, Callable[[], float]]] = []
        self._labelled: list[tuple[Callable[..., Family], str, str, str, Read]] = []
        self._durations: list[tuple[str, str, Histogram]] = []
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        self._registry.register(self)

    def add_gauge(self, name: str, text: str, read: Callable[[], float]) -> None:
        """Add a gauge whose value is read when it is scraped."""
        self._gauges.append((name, text, read))

    def add_counter(self, name: str, text: str, read: Callable[[], float]) -> None:
        """Add a counter, kept elsewhere, that is read when it is scraped.

        `_total` is appended to its name.
        """
        self._counters.append((name, text, read))

    def add_labelled_gauge(self, name: str, text: str, label: str, read: Read) -> None:
        """Add a gauge with a label, whose values are read when it is scraped."""
        self._labelled.append((GaugeMetricFamily, name, text, label, read))

    def add_labelled_counter(self, name: str, text: str, label: str, read: Read) -> None:
        """`add_counter`, with a label."""
        self._labelled.append((CounterMetricFamily, name, text, label, read))

    def add_duration(self, name: str, text: str) -> Callable[[float], None]:
        """Add a histogram of durations up to some seconds; returns its `observe`."""
        histogram = Histogram(_SECONDS)
        self._durations.append((name, text, histogram))
        return histogram.observe

    def observe_request(self, method: bytes, route: str, status: int, seconds: float) -> None:
        """Count a request that was completed without waiting for a message."""
        # The only look-up: the histogram counts the requests, too.
        histogram = self._requests.get((method, route, status))
        if histogram is None:
            histogram = self._requests[method, route, status] = Histogram(_SECONDS)
        histogram.observe(seconds)

    def count_refusal(self, bound: str) -> None:
        """Count something that was refused, or ended, because this bound was reached."""
        self._refusals[bound] += 1

    def observe_poll(self, outcome: str, seconds: float) -> None:
        """Count a finished poll that asked to wait; `seconds` is how long it was held."""
        self._polls[outcome] += 1
        self._hold_seconds.observe(seconds)

    def batch_observer(self, verb: str) -> Callable[[float], None]:
        """The observer of the sizes of batches passed to one method of the store."""
        return self._batch_sizes.setdefault(verb, Histogram(_SIZES)).observe

    def store_observer(self, verb: str) -> Callable[[float], None]:
        """The observer of the seconds that calls of one method of the store take."""
        return self._store_seconds.setdefault(verb, Histogram(_SECONDS)).observe

    def count_store_error(self, verb: str) -> None:
        """Count a call of the store that failed because of the database."""
        self._store_errors[verb] += 1

    def observe_delivery(self, seconds: float, polls: int) -> None:
        """Count held polls that were woken for new messages at once, and how long that took."""
        self._delivery_seconds.observe(seconds, polls)

    def count_wakeups(self, source: str, polls: int) -> None:
        """Count held polls woken by the "bus", a "resync" after it was down, a "check" of users
        whose events may have been missed, or the "sweep"."""
        self._wakeups[source] += polls

    def count_missed_wakeups(self, polls: int) -> None:
        """Count polls that the sweep found to have missed a wake-up, and woke."""
        self._missed_wakeups += polls
        self.count_wakeups("sweep", polls)

    def count_changed_message(self) -> None:
        """Count a message that was edited or deleted, in whichever process."""
        self._changed_messages += 1

    def observe_lag(self, seconds: float) -> None:
        """Record how late the reactor ran a timer."""
        self._lag.observe(seconds)

    def render(self) -> bytes:
        """All metrics in the Prometheus text format."""
        return generate_latest(self._registry)

    def describe(self) -> list[Metric]:
        """Implement `Collector`: nothing needs to be collected on registration."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Implement `Collector`."""
        yield InfoMetricFamily("chatd_build", "The running version", {"version": __version__})
        requests = CounterMetricFamily(
            "chatd_requests",
            "Requests answered, without held polls, by method, route and status",
            labels=("method", "route", "status"),
        )
        by_route: dict[str, Histogram] = {}
        for (method, route, status), histogram in self._requests.items():
            requests.add_metric((method.decode("latin-1"), route, str(status)), histogram.count)
            by_route.setdefault(route, Histogram(_SECONDS)).add(histogram)
        yield requests
        yield _histograms(
            "chatd_request_seconds",
            "Seconds from the end of a request to its response, without held polls, by route",
            "route",
            by_route,
        )
        yield _counter(
            "chatd_refusals",
            "What was refused, or ended, because a bound was reached, by bound (docs/security.md)",
            "bound",
            self._refusals,
        )
        yield _counter(
            "chatd_polls",
            "Polls that asked to wait, and streams, by outcome",
            "outcome",
            self._polls,
        )
        yield _counter(
            "chatd_wakeups", "Held polls and streams woken, by source", "source", self._wakeups
        )
        yield CounterMetricFamily(
            "chatd_sweep_found",
            "Held polls and streams that had missed a wake-up: above 0 there is a bug, unless the"
            " bus is NATS",
            self._missed_wakeups,
        )
        yield CounterMetricFamily(
            "chatd_changed_messages",
            "Messages edited or deleted, by this process and by others as it was told",
            self._changed_messages,
        )
        yield _histogram(
            "chatd_delivery_seconds",
            "Seconds from a commit, as this process learned of it, until the response of a held "
            "poll or stream was written",
            self._delivery_seconds,
        )
        yield _histograms(
            "chatd_store_seconds",
            "Seconds that calls of the store took, by verb; append and read are batches",
            "verb",
            self._store_seconds,
        )
        yield _counter(
            "chatd_store_errors",
            "Calls of the store that failed because of the database, by verb",
            "verb",
            self._store_errors,
        )
        yield _histogram(
            "chatd_poll_hold_seconds",
            "Seconds that polls were held, and streams open",
            self._hold_seconds,
        )
        yield _histogram("chatd_reactor_lag_seconds", "How late the reactor ran a timer", self._lag)
        yield _histograms(
            "chatd_batch_size", "Items in one call of the store", "verb", self._batch_sizes
        )
        for name, text, read in self._gauges:
            yield GaugeMetricFamily(name, text, read())
        for name, text, read in self._counters:
            yield CounterMetricFamily(name, text, read())
        for family, name, text, label, values in self._labelled:
            metric = family(name, text, labels=(label,))
            for value, number in values().items():
                metric.add_metric((value,), number)
            yield metric
        for name, text, histogram in self._durations:
            yield _histogram(name, text, histogram)


def _counter(name: str, text: str, label: str, counts: Counter[str]) -> Metric:
    family = CounterMetricFamily(name, text, labels=(label,))
    for value, count in counts.items():
        family.add_metric((value,), count)
    return family


def _histograms(name: str, text: str, label: str, histograms: Mapping[str, Histogram]) -> Metric:
    family = HistogramMetricFamily(name, text, labels=(label,))
    for value, histogram in histograms.items():
        family.add_metric((value,), *histogram.buckets())
    return family


def _histogram(name: str, text: str, histogram: Histogram) -> Metric:
    buckets, total = histogram.buckets()
    return HistogramMetricFamily(name, text, buckets=buckets, sum_value=total)
