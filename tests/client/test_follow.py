"""`Follow`: an inbox is followed through failing connections and services, by either transport."""

import pytest
from twisted.internet.defer import CancelledError, Deferred

from chatd.client import (
    APIError,
    ChatError,
    FollowTransport,
    Gap,
    HistoryChanged,
    Position,
    Unreachable,
)
from tests.client.following import Following
from tests.client.scripted import Canned, Disconnect, failure, polled, problem


class TestFollow(Following):
    @pytest.fixture(params=["poll", "stream"], autouse=True)
    def choose(self, request: pytest.FixtureRequest) -> None:
        transport: FollowTransport = request.param
        self.transport = transport

    def test_cursors_are_passed_on(self) -> None:
        self.follow(polled(1, 2, count=5), Disconnect(), polled(3, 4, 5), Disconnect(), polled(6))
        self.harness.advance(1)
        assert self.seen == [1, 2, 3, 4, 5, 6]
        assert self.service.cursors()[:3] == ["0", "epochepoch-2", "epochepoch-5"]

    def test_following_from_now_gets_a_cursor_before_it_waits(self) -> None:
        self.follow(polled(count=9), polled(10), since="now")
        assert self.service.query("wait", 0) == "0"
        assert self.service.query("since", 1) == "epochepoch-9"
        assert self.seen == [10]

    def test_a_lost_response_is_requested_again(self) -> None:
        self.follow(polled(1), Disconnect(), polled(2))
        assert self.seen == [1]
        self.harness.advance(1)
        assert self.seen == [1, 2]
        assert self.service.cursors()[:2] == ["0", "epochepoch-1"]

    def test_repeated_messages_are_skipped(self) -> None:
        self.follow(polled(1, 2), polled(1, 2, 3), polled(3, 4))
        assert self.seen == [1, 2, 3, 4]

    def test_a_gap_raises(self) -> None:
        self.follow(polled(1, 3))
        gap = failure(self.reading, Gap)
        assert (gap.expected, gap.found) == (2, 3)
        assert "message 2 should come next" in str(gap)

    def test_iteration_can_resume_after_a_gap(self) -> None:
        follow = self.follow(polled(1, 2, 4))
        failure(self.reading, Gap)
        self.service.script = [polled(1, 2, 3, 4)]
        self.read(follow)
        self.harness.http.flush()
        assert self.seen == [1, 2, 3, 4]

    def test_an_unreachable_service_is_retried_with_backoff(self) -> None:
        changes: list[ChatError | None] = []
        self.harness.random_value = 0.999
        self.follow(*[Disconnect()] * 8, polled(1), polled(2), on_connection_change=changes.append)
        self.harness.advance(0.1)
        assert len(self.service.requests) == 1
        self.harness.advance(64)
        assert self.seen == [1, 2]
        [lost, restored] = changes
        assert isinstance(lost, Unreachable)
        assert restored is None

    def test_temporary_errors_are_survived(self) -> None:
        self.follow(
            problem(429, "rate_limited", Retry_After="3"),
            problem(408, "request_timeout"),
            problem(503, "overloaded", Retry_After="3"),
            problem(500, "internal_error"),
            Canned(502, raw=b"<html>bad gateway</html>"),
            Canned(504, raw=b"<html>gateway timeout</html>"),
            Canned(200, raw=b'{"meta": {"count": 1, "cur'),
            Canned(200, raw=b"<html>captive portal</html>"),
            polled(1),
        )
        self.harness.advance(3)
        assert len(self.service.requests) == 1
        self.harness.advance(60)
        assert self.seen == [1]

    def test_a_revoked_token_raises(self) -> None:
        self.follow(polled(1), problem(401, "unauthorized"))
        assert failure(self.reading, APIError).status == 401
        assert self.seen == [1]

    def test_another_history_raises(self) -> None:
        self.follow(problem(410, "cursor_epoch"), since="epochepoch-9")
        failure(self.reading, HistoryChanged)

    def test_on_resync_says_where_another_history_is_started(self) -> None:
        errors: list[HistoryChanged] = []

        def resync(changed: HistoryChanged) -> str:
            errors.append(changed)
            return "0"

        self.follow(
            polled(8, 9),
            problem(410, "cursor_epoch"),
            polled(1, 2, cursor="secondsecond-2"),
            since="epochepoch-7",
            on_resync=resync,
        )
        self.harness.advance(1)
        assert self.seen == [8, 9, 1, 2]
        assert errors[0].code == "cursor_epoch"
        assert "0" in self.service.cursors()

    def test_on_resync_may_be_asynchronous(self) -> None:
        decided: Deferred[str] = Deferred()
        self.follow(problem(410, "cursor_epoch"), polled(count=3), on_resync=lambda _: decided)
        assert len(self.service.requests) == 1
        decided.callback("now")
        self.harness.advance(1)
        assert self.service.query("since", 1) == "now"

    def test_an_on_resync_that_keeps_a_rejected_cursor_does_not_spin(self) -> None:
        self.harness.random_value = 0.999
        self.follow(
            *[problem(410, "cursor_epoch")] * 50,
            since="deaddead-1",
            on_resync=lambda _: "deaddead-1",
        )
        self.harness.advance(10)
        assert len(self.service.requests) < 10

    def test_retry_after_of_a_stopping_server_is_respected(self) -> None:
        self.harness.random_value = 0.0
        self.follow(polled(count=0, waited=5000, headers={"Retry-After": "4"}), polled(1))
        self.harness.advance(3.9)
        assert self.seen == []
        self.harness.advance(0.2)
        assert self.seen == [1]

    def test_superseded_polls_are_not_repeated_at_once(self) -> None:
        self.harness.random_value = 0.999
        responses = [polled(count=0, superseded=True, waited=2000)] * 50
        self.follow(*responses)
        self.harness.advance(10)
        assert len(self.service.requests) < 10

    def test_a_position_inside_a_response_can_be_resumed(self) -> None:
        self.follow(polled(1, 2, 3), polled(4), since=Position("0", 2))
        assert self.service.query("since", 0) == "0"
        assert self.seen == [3, 4]

    def test_a_gap_after_a_resumed_position_raises(self) -> None:
        self.follow(polled(9), since=Position("epochepoch-7", 7))
        failure(self.reading, Gap)

    def test_empty_responses_advance_the_position(self) -> None:
        follow = self.follow(polled(count=4), since="now")
        assert follow.position == Position("epochepoch-4", 4)

    def test_cancelling_ends_the_poll(self) -> None:
        self.follow()
        lost: list[object] = []
        _ = self.service.held[0].notifyFinish().addErrback(lost.append)
        self.reading.cancel()
        self.harness.http.flush()
        failure(self.reading, CancelledError)
        assert len(lost) == 1
        assert self.harness.clock.getDelayedCalls() == []

    def test_following_from_now_detects_a_gap_at_once(self) -> None:
        self.follow(polled(count=9), polled(11), since="now")
        gap = failure(self.reading, Gap)
        assert (gap.expected, gap.found) == (10, 11)
