"""`Follow`: an inbox is followed through failing connections and services."""

from typing import Any

from twisted.internet.defer import CancelledError, Deferred, succeed

from chatd.client import APIError, ChatError, Follow, Gap, HistoryChanged, Position, Unreachable
from tests.client.scripted import (
    Canned,
    Disconnect,
    Harness,
    Hold,
    failure,
    polled,
    problem,
    success,
)


class TestFollow:
    def setup_method(self) -> None:
        self.harness = Harness()
        self.service = self.harness.service
        self.seen: list[int] = []
        self.reading: Deferred[None] = succeed(None)

    def follow(
        self, *script: Canned | Disconnect | Hold, since: Any = "0", **options: Any
    ) -> Follow:
        """Follow while the service responds from the script; collect seqs in `seen`."""
        self.service.script = [*script, Hold()]
        follow = self.harness.client.follow(since, **options)
        self.read(follow)
        self.harness.http.flush()
        return follow

    def read(self, follow: Follow) -> None:
        async def reading() -> None:
            async for message in follow:
                self.seen.append(message.seq)

        self.reading = Deferred.fromCoroutine(reading())

    def teardown_method(self) -> None:
        _ = self.reading.addErrback(lambda f: f.trap(CancelledError))
        self.reading.cancel()

    def test_messages_arrive_in_order_and_cursors_are_passed_on(self) -> None:
        self.follow(polled(1, 2, count=5), polled(3, 4, 5), polled(6))
        assert self.seen == [1, 2, 3, 4, 5, 6]
        cursors = [self.service.query("since", at) for at in range(4)]
        assert cursors == ["0", "epochepoch-2", "epochepoch-5", "epochepoch-6"]
        assert self.service.query("wait") == "30"

    def test_following_from_now_gets_a_cursor_before_it_waits(self) -> None:
        self.follow(polled(count=9), polled(10), since="now")
        assert self.service.query("wait", 0) == "0"
        assert self.service.query("since", 1) == "epochepoch-9"
        assert self.seen == [10]

    def test_following_from_now_detects_a_gap_at_once(self) -> None:
        self.follow(polled(count=9), polled(11), since="now")
        gap = failure(self.reading, Gap)
        assert (gap.expected, gap.found) == (10, 11)

    def test_a_timed_out_poll_is_repeated_at_once(self) -> None:
        self.follow(polled(count=0, timed_out=True, waited=30_000), polled(1))
        assert self.seen == [1]

    def test_a_lost_response_is_requested_again(self) -> None:
        self.follow(polled(1), Disconnect(), polled(2))
        assert self.seen == [1]
        self.harness.advance(1)
        assert self.seen == [1, 2]
        assert self.service.query("since", 1) == self.service.query("since", 2)

    def test_repeated_messages_are_skipped(self) -> None:
        self.follow(polled(1, 2), polled(1, 2, 3), polled(3, 4))
        assert self.seen == [1, 2, 3, 4]

    def test_a_gap_raises(self) -> None:
        self.follow(polled(1, 3))
        gap = failure(self.reading, Gap)
        assert (gap.expected, gap.found) == (2, 3)
        assert "message 2 should come next" in str(gap)

    def test_a_gap_at_the_end_of_a_response_raises(self) -> None:
        self.follow(polled(1, 2, count=4, more=False))
        failure(self.reading, Gap)

    def test_an_empty_response_despite_new_messages_is_a_gap(self) -> None:
        self.follow(polled(1), polled(count=3, timed_out=True))
        gap = failure(self.reading, Gap)
        assert (gap.expected, gap.found) == (2, 3)

    def test_iteration_can_resume_after_a_gap(self) -> None:
        follow = self.follow(polled(1, 2, 4))
        failure(self.reading, Gap)
        assert self.seen == []
        self.service.script = [polled(1, 2, 3, 4), Hold()]
        self.read(follow)
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
        assert self.service.query("since", 2) == "0"

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

    def test_polls_get_shorter_when_a_proxy_cuts_them(self) -> None:
        self.follow(Hold(), Hold())
        self.harness.advance(20)
        self.harness.respond(Disconnect())
        self.harness.advance(1)
        assert self.service.query("wait") == "16"
        self.harness.advance(10)
        self.harness.respond(Canned(504, raw=b""))
        self.harness.advance(1)
        assert float(self.service.query("wait") or 99) < 9

    def test_fewer_messages_are_requested_when_responses_are_lost(self) -> None:
        self.follow(*[Disconnect()] * 9, *[polled(count=0, timed_out=True)] * 9)
        self.harness.advance(90)
        limits = [int(self.service.query("limit", at) or 0) for at in range(19)]
        assert limits[:10] == [100, 50, 25, 12, 6, 3, 1, 1, 1, 1]
        assert limits[10:] == [2, 4, 8, 16, 32, 64, 100, 100, 100]

    def test_polls_get_longer_again_when_nothing_cuts_them(self) -> None:
        idle = polled(count=0, timed_out=True)
        self.follow(Hold(), *[idle] * 40)
        self.harness.advance(6)
        self.harness.respond(Disconnect())
        self.harness.advance(1)
        assert self.service.query("wait", 1) == "5"
        assert self.service.query("wait") == "30"

    def test_a_poll_without_a_response_times_out(self) -> None:
        self.follow(Hold(), polled(1))
        self.harness.advance(44)
        assert self.seen == []
        self.harness.advance(2)
        assert self.seen == [1]

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

    def test_a_server_that_does_not_hold_polls_is_not_flooded(self) -> None:
        self.harness.random_value = 0.999
        self.follow(*[polled(count=0)] * 500)
        self.harness.advance(30)
        assert len(self.service.requests) < 12

    def test_the_position_follows_the_last_message_taken(self) -> None:
        self.service.script = [polled(1, 2, 3), Hold()]
        follow = self.harness.client.follow("0")
        assert str(follow.position) == "0:0"
        success(self.harness.start(follow.__anext__()))
        success(self.harness.start(follow.__anext__()))
        assert follow.position == Position("0", 2)
        success(self.harness.start(follow.__anext__()))
        assert follow.position == Position("epochepoch-3", 3)

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
