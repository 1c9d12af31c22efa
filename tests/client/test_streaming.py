"""`Streaming`: one response follows an inbox, and polls do where streams do not work."""

from __future__ import annotations

import json
from typing import Any

import pytest
from twisted.internet.defer import CancelledError, Deferred, fail
from twisted.internet.error import ConnectingCancelledError, ConnectionRefusedError

from chatd.client import APIError, ChatClient, ChatError, Gap, Position, Unreachable
from tests.client.following import Following
from tests.client.scripted import (
    Canned,
    Disconnect,
    Harness,
    Hold,
    Lines,
    Step,
    failure,
    line,
    message,
    polled,
    problem,
    success,
)


class TestStreaming(Following):
    transport = "stream"

    def lost(self) -> list[object]:
        """Filled when the client has closed the held stream."""
        lost: list[object] = []
        _ = self.service.held[0].notifyFinish().addErrback(lost.append)
        return lost

    def test_one_request_brings_all_messages(self) -> None:
        self.follow(polled(1, 2, count=5), polled(3, 4, 5))
        assert self.seen == [1, 2, 3, 4, 5]
        self.harness.respond(polled(6))
        assert self.seen == [1, 2, 3, 4, 5, 6]
        [request] = self.service.requests
        assert request.getHeader("accept") == "application/x-ndjson"
        assert request.getHeader("authorization") == "Bearer chatd_token"
        assert request.args == {b"since": [b"0"]}

    def test_an_incomplete_line_is_requested_again(self) -> None:
        whole = line(cursor="epochepoch-2", message=message(2))
        for length in range(len(whole)):
            self.setup_method()
            self.follow(polled(1), Lines(whole[:length], end=True), polled(2, 3))
            self.harness.advance(1)
            assert self.seen == [1, 2, 3]
            assert self.service.cursors() == ["0", "epochepoch-1"]
            self.teardown_method()

    def test_the_position_follows_the_last_message_taken(self) -> None:
        follow = self.open(polled(1, 2, 3))
        assert str(follow.position) == "0"
        for seq in (1, 2, 3):
            taking = self.harness.start(follow.__anext__())
            self.harness.http.flush()
            assert success(taking).seq == seq
            assert follow.position == Position(f"epochepoch-{seq}", seq)
        follow.close()

    def test_after_a_gap_the_missing_message_is_requested(self) -> None:
        follow = self.follow(polled(1, 3, 4))
        failure(self.reading, Gap)
        self.service.script = [polled(2, 3)]
        self.read(follow)
        self.harness.http.flush()
        assert self.service.query("since") == "epochepoch-1"
        assert self.seen == [1, 2, 3]

    def test_a_failing_callback_loses_no_message(self) -> None:
        failures = [LookupError()]

        def report(error: ChatError | None) -> None:
            if error is None and failures:
                raise failures.pop()

        raw = line(cursor="epochepoch-1", message=message(1))
        whole = Canned(200, raw=raw, headers={"Content-Type": "application/x-ndjson"})
        follow = self.follow(Disconnect(), whole, on_connection_change=report)
        self.harness.advance(1)
        failure(self.reading, LookupError)
        self.service.script = [polled(1)]
        self.read(follow)
        self.harness.http.flush()
        assert self.seen == [1]

    def test_silence_reconnects(self) -> None:
        changes: list[ChatError | None] = []
        self.follow(polled(1), on_connection_change=changes.append)
        for _ in range(4):
            self.harness.advance(15)
            self.harness.respond(Lines(line(keepalive=True)))
        self.harness.advance(39)
        assert len(self.service.requests) == 1
        assert changes == []
        lost = self.lost()
        self.service.script = [polled(2)]
        self.harness.advance(2)
        assert len(lost) == 1
        assert self.service.query("since") == "epochepoch-1"
        assert self.seen == [1, 2]
        [broken, restored] = changes
        assert isinstance(broken, Unreachable)
        assert restored is None

    def test_a_drained_stream_is_opened_after_the_pause(self) -> None:
        changes: list[ChatError | None] = []
        self.harness.random_value = 0.0
        drain = line(drain=True, retry_after=4)
        self.follow(
            polled(1), Lines(drain, end=True), polled(2), on_connection_change=changes.append
        )
        self.harness.advance(3.9)
        assert self.seen == [1]
        self.harness.advance(0.2)
        assert self.seen == [1, 2]
        assert changes == []

    def test_an_endless_pause_is_shortened(self) -> None:
        self.follow(Lines(line(drain=True, retry_after=10**9), end=True), polled(1))
        self.harness.advance(301)
        assert self.seen == [1]

    def test_a_superseded_stream_gives_others_time(self) -> None:
        self.harness.random_value = 0.999
        self.follow(Lines(line(superseded=True), end=True), polled(1))
        self.harness.advance(29)
        assert self.seen == []
        self.harness.advance(1)
        assert self.seen == [1]

    def test_a_service_that_ends_every_stream_at_once_is_not_flooded(self) -> None:
        self.harness.random_value = 0.999
        self.follow(*[Lines(b"", end=True)] * 500)
        self.harness.advance(30)
        assert len(self.service.requests) < 12

    @pytest.mark.parametrize("step", [problem(503, "store_unavailable"), problem(500, "internal")])
    def test_an_error_on_the_stream_is_retried_as_its_status_says(self, step: Canned) -> None:
        changes: list[ChatError | None] = []
        self.follow(polled(1), step, polled(2), on_connection_change=changes.append)
        self.harness.advance(1)
        assert self.seen == [1, 2]
        assert isinstance(changes[0], APIError)

    def test_an_error_on_the_stream_has_code_and_detail(self) -> None:
        self.follow(polled(1), problem(401, "unauthorized"))
        error = failure(self.reading, APIError)
        assert (error.status, error.code, error.detail) == (
            401,
            "unauthorized",
            "it is unauthorized",
        )

    @pytest.mark.parametrize(
        "raw",
        [
            b"<html>\n",
            b"[]\n",
            b'{"error": {"status": "401"}}\n',
            line(message=message(2)),
            line(cursor="epochepoch-2", message={"seq": 2}),
        ],
    )
    def test_a_line_that_is_not_from_chatd_reconnects(self, raw: bytes) -> None:
        self.follow(polled(1), Lines(raw, end=True), polled(2))
        self.harness.advance(1)
        assert self.service.cursors()[:2] == ["0", "epochepoch-1"]
        assert self.seen == [1, 2]

    def test_unknown_lines_and_members_are_ignored(self) -> None:
        changed = json.dumps({"cursor": "epochepoch-1", "change": {"type": "read"}}).encode()
        self.follow(Lines(changed + b"\n"), polled(1))
        assert self.seen == [1]

    def test_a_stream_that_is_not_one_is_retried(self) -> None:
        changes: list[ChatError | None] = []
        self.service.streams = False
        self.follow(polled(1), on_connection_change=changes.append)
        assert "not a stream" in str(changes[0])
        self.service.streams = True
        self.service.script = [polled(1)]
        self.harness.advance(1)
        assert self.seen == [1]

    def test_leaving_the_loop_keeps_the_stream_until_it_is_closed(self) -> None:
        follow = self.open(polled(1))
        taking = self.harness.start(follow.__anext__())
        self.harness.http.flush()
        success(taking)
        lost = self.lost()
        self.harness.http.flush()
        assert lost == []
        follow.close()
        self.harness.http.flush()
        assert len(lost) == 1
        assert self.harness.clock.getDelayedCalls() == []

    def test_closing_the_client_closes_streams_that_nobody_reads(self) -> None:
        follow = self.open(polled(1))
        taking = self.harness.start(follow.__anext__())
        self.harness.http.flush()
        success(taking)
        closing = self.harness.start(self.harness.client.close())
        assert not closing.called
        self.harness.http.flush()
        success(closing)
        assert self.harness.clock.getDelayedCalls() == []

    def test_closing_the_client_does_not_wait_forever(self) -> None:
        follow = self.open(polled(1))
        taking = self.harness.start(follow.__anext__())
        self.harness.http.flush()
        success(taking)
        closing = self.harness.start(self.harness.client.close())
        self.harness.clock.advance(4.9)
        assert not closing.called
        self.harness.clock.advance(0.1)
        success(closing)
        self.harness.http.flush()
        assert self.harness.clock.getDelayedCalls() == []

    def test_closing_the_client_does_not_end_a_read_in_progress(self) -> None:
        self.follow(polled(1))
        success(self.harness.start(self.harness.client.close()))
        self.harness.respond(polled(2))
        assert self.seen == [1, 2]

    def test_a_reader_that_was_away_misses_nothing(self) -> None:
        follow = self.open(polled(1, 2), Disconnect(), polled(3))
        seen = []
        for _ in range(3):
            taking = self.harness.start(follow.__anext__())
            self.harness.advance(1)
            seen.append(success(taking).seq)
            self.harness.advance(100)
        assert seen == [1, 2, 3]

    def test_a_stream_closed_unread_is_not_a_failure(self) -> None:
        changes: list[ChatError | None] = []
        follow = self.open(polled(1), on_connection_change=changes.append)
        taking = self.harness.start(follow.__anext__())
        self.harness.http.flush()
        success(taking)
        self.harness.advance(41)
        self.service.script = [polled(2)]
        taking = self.harness.start(follow.__anext__())
        self.harness.http.flush()
        assert success(taking).seq == 2
        assert changes == []
        follow.close()


class TestFallingBack(Following):
    transport = "auto"

    def test_streams_are_preferred(self) -> None:
        self.follow(polled(1))
        [request] = self.service.requests
        assert request.getHeader("accept") == "application/x-ndjson"
        assert self.seen == [1]

    def test_a_service_without_streams_is_polled(self) -> None:
        self.service.streams = False
        changes: list[ChatError | None] = []
        ignored = polled(1)
        self.follow(
            ignored, polled(1), Disconnect(), polled(2), on_connection_change=changes.append
        )
        self.harness.advance(1)
        assert self.seen == [1, 2]
        accepts = [request.getHeader("accept") for request in self.service.requests]
        assert accepts == ["application/x-ndjson"] + ["application/json"] * 4
        assert len(changes) == 2

    def test_a_response_that_does_not_begin_is_given_up(self) -> None:
        self.service.streams = False
        self.follow(Hold(), polled(1))
        lost = [request.notifyFinish() for request in self.service.held]
        self.harness.advance(14.9)
        assert len(self.service.requests) == 1
        self.harness.advance(0.2)
        assert self.seen == [1]
        failure(lost[0], Exception)

    def test_a_stream_without_a_first_line_is_given_up(self) -> None:
        self.service.streams = False
        self.follow(Hold(), polled(1))
        [request] = self.service.held
        request.setHeader("Content-Type", "application/x-ndjson; charset=utf-8")
        request.write(b'{"keepalive":')
        self.harness.advance(14.9)
        assert len(self.service.requests) == 1
        self.harness.advance(0.2)
        assert self.seen == [1]

    def test_a_lost_connection_is_no_reason(self) -> None:
        self.follow(Disconnect(), problem(503, "overloaded"), polled(1))
        self.harness.advance(2)
        assert self.seen == [1]
        assert self.service.query("wait") is None

    def test_a_network_on_which_no_stream_gets_through_is_polled(self) -> None:
        cuts: list[Step] = [Lines(b"", end=True), Disconnect()]
        self.follow(*cuts * 2, polled(1), *cuts * 3, polled(2))
        self.harness.advance(30)
        assert self.seen == [1, 2]
        accepts = [request.getHeader("accept") for request in self.service.requests]
        # The stream that brought a message was cut, too.
        assert accepts.count("application/x-ndjson") == 4 + 1 + 4
        assert self.service.query("wait") == "30"

    def test_a_stream_that_has_worked_is_not_given_up_at_once(self) -> None:
        page = Canned(200, raw=b"<html>please log in to the hotel</html>")
        self.follow(polled(1), Disconnect(), *[page] * 3, polled(2), Disconnect(), *[page] * 4)
        self.harness.advance(30)
        assert self.seen == [1, 2]
        assert self.service.requests[-2].getHeader("accept") == "application/x-ndjson"
        assert self.service.query("wait") == "30"

    def test_errors_are_errors(self) -> None:
        self.follow(problem(401, "unauthorized"))
        assert failure(self.reading, APIError).status == 401

    def test_cancelling_while_a_stream_is_opened(self) -> None:
        self.service.streams = False
        self.follow(Hold())
        lost = self.service.held[0].notifyFinish()
        self.reading.cancel()
        self.harness.http.flush()
        failure(self.reading, CancelledError)
        failure(lost, Exception)
        assert self.harness.clock.getDelayedCalls() == []


class Unconnected:
    """A network on which connections are refused, or not answered."""

    def __init__(self, http: Any) -> None:
        self._http = http
        self.outcomes: list[str] = []

    def request(self, *arguments: Any, **options: Any) -> Deferred[Any]:
        outcome = self.outcomes.pop(0) if self.outcomes else "connected"
        if outcome == "refused":
            return fail(ConnectionRefusedError())
        if outcome == "unanswered":
            return Deferred(lambda connecting: connecting.errback(ConnectingCancelledError(None)))
        response: Deferred[Any] = self._http.request(*arguments, **options)
        return response


def test_without_a_connection_nothing_is_known_of_streams() -> None:
    harness = Harness()
    network = Unconnected(harness.http)
    network.outcomes = ["unanswered", *["refused"] * 9]
    client = ChatClient(
        "http://chat.example", "chatd_token", http=network, clock=harness.clock, random=lambda: 0.0
    )
    harness.service.script = [polled(1)]
    follow = client.follow("0")
    taking = harness.start(follow.__anext__())
    harness.advance(20)
    assert success(taking).seq == 1
    [request] = harness.service.requests
    assert request.getHeader("accept") == "application/x-ndjson"
    follow.close()


def test_the_transport_is_checked() -> None:
    with pytest.raises(ValueError, match="'carrier pigeon' is not a transport"):
        Harness().client.follow(transport="carrier pigeon")  # type: ignore[call-overload]
