"""A run of deliveries over streams counts what the server did wrong."""

from contextlib import closing
from types import SimpleNamespace
from typing import Any

import pytest

from bench import deliveries, traffic
from bench.load_client import ConnectionBroken
from bench.protocols import UnexpectedResponse
from bench.results import Result
from bench.servers import Server
from bench.usage import Timing
from tests.bench.fake_streams import FakeStreams

USERS = 2
"""The first sends of the 16 senders bring each of them more messages than `fake_streams.FAULTY`."""


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait briefly for what will not arrive."""
    monkeypatch.setattr(deliveries, "DRAIN_SECONDS", 0.2)
    monkeypatch.setattr(deliveries, "LATE_SECONDS", 0.01)
    monkeypatch.setattr(traffic, "SETTLE_SECONDS", 0.01)


def server(streams: FakeStreams) -> Server:
    process: Any = SimpleNamespace(cpu_seconds=0.0, resident_bytes=0)
    return Server("fake", process, None, lambda: streams)


def run(fault: str | None) -> tuple[Result, FakeStreams]:
    with closing(FakeStreams(fault)) as streams:
        return deliveries.stream(server(streams), USERS, Timing(0.0, 0.1)), streams


def test_all_messages_arrive_once_and_in_order() -> None:
    result, streams = run(None)
    figures = result.figures
    assert result.ok
    assert figures["arrived"] == figures["acknowledged"] == streams.sent > USERS
    assert (result.workload, result.at) == ("stream", USERS)
    assert 0 < figures["p50"] <= figures["p99"]
    assert figures["rate"] > 0


@pytest.mark.parametrize(
    ("fault", "counted"),
    [
        ("lose", {"lost": USERS, "gaps": USERS}),
        ("double", {"duplicated": USERS, "gaps": USERS}),
        ("swap", {"gaps": 3 * USERS}),
        ("misroute", {"lost": USERS, "misrouted": USERS}),
    ],
)
def test_faults_are_counted(fault: str, counted: dict[str, int]) -> None:
    result, _ = run(fault)
    assert not result.ok
    assert {name: result.figures[name] for name in counted} == counted


@pytest.mark.parametrize(
    ("fault", "error"), [("reject", UnexpectedResponse), ("end", ConnectionBroken)]
)
def test_a_rejected_send_and_a_stream_that_ends_are_errors(
    fault: str, error: type[Exception]
) -> None:
    with pytest.raises(error):
        run(fault)


def test_messages_to_parked_streams_are_counted() -> None:
    with closing(FakeStreams()) as streams:
        result = deliveries.park_streams(server(streams), USERS, 0.01)
    assert result.ok
    assert result.figures["arrived"] == streams.sent == deliveries.WAKES
    with closing(FakeStreams("double")) as streams:
        assert not deliveries.park_streams(server(streams), USERS, 0.01).ok


def test_a_server_without_polls_has_no_result_over_polls() -> None:
    assert deliveries.deliver(server(FakeStreams()), USERS, Timing(0.0, 0.1)) is None
    assert deliveries.park(server(FakeStreams()), USERS, 0.01) is None
