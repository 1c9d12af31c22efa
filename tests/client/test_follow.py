"""Following an inbox through everything that can happen to connections and services."""

from typing import Any

from twisted.internet.defer import CancelledError, Deferred, succeed

from chatd.client import APIError, ChatError, Follow, Gap, HistoryChanged, Position, Unreachable
from tests.client.scripted import Canned, Cut, Hold, World, failure, polled, problem, success


class TestFollow:
    def setup_method(self) -> None:
        self.world = World()
        self.service = self.world.service
        self.seen: list[int] = []
        self.reading: Deferred[None] = succeed(None)

    def follow(self, *script: Canned | Cut | Hold, since: Any = "0", **options: Any) -> Follow:
        """Follow through the script, putting what comes into `seen`."""
        self.service.script = [*script, Hold()]
        follow = self.world.client.follow(since, **options)
        self.read(follow)
        self.world.http.flush()
        return follow

    def read(self, follow: Follow) -> None:
        async def reading() -> None:
            async for message in follow:
                self.seen.append(message.seq)

        self.reading = Deferred.fromCoroutine(reading())

    def teardown_method(self) -> None:
        _ = self.reading.addErrback(lambda failure: failure.trap(CancelledError))
        self.reading.cancel()

    def test_messages_come_in_order_and_each_cursor_is_passed_on(self) -> None:
        self.follow(polled(1, 2, count=5), polled(3, 4, 5), polled(6))
        assert self.seen == [1, 2, 3, 4, 5, 6]
        asked = [self.service.query("since", at) for at in range(4)]
        assert asked == ["0", "epochepoch-2", "epochepoch-5", "epochepoch-6"]
        assert self.service.query("wait") == "30"

    def test_from_now_on_the_place_is_fixed_before_anything_waits(self) -> None:
        self.follow(polled(count=9), polled(10), since="now")
        assert self.service.query("wait", 0) == "0"
        assert self.service.query("since", 1) == "epochepoch-9"
        assert self.seen == [10]

    def test_from_now_on_a_gap_is_seen_at_once(self) -> None:
        self.follow(polled(count=9), polled(11), since="now")
        gap = failure(self.reading, Gap)
        assert (gap.expected, gap.found) == (10, 11)

    def test_a_timed_out_poll_is_asked_again_at_once(self) -> None:
        self.follow(polled(count=0, timed_out=True, waited=30_000), polled(1))
        assert self.seen == [1]

    def test_a_lost_answer_is_asked_for_again(self) -> None:
        self.follow(polled(1), Cut(), polled(2))
        assert self.seen == [1]
        self.world.pass_time(1)
        assert self.seen == [1, 2]
        assert self.service.query("since", 1) == self.service.query("since", 2)

    def test_what_is_given_twice_is_taken_once(self) -> None:
        self.follow(polled(1, 2), polled(1, 2, 3), polled(3, 4))
        assert self.seen == [1, 2, 3, 4]

    def test_a_gap_raises(self) -> None:
        self.follow(polled(1, 3))
        gap = failure(self.reading, Gap)
        assert (gap.expected, gap.found) == (2, 3)
        assert "message 2 should come next" in str(gap)

    def test_a_gap_at_the_end_of_an_answer_raises(self) -> None:
        self.follow(polled(1, 2, count=4, more=False))
        failure(self.reading, Gap)

    def test_an_empty_answer_for_a_full_inbox_is_a_gap(self) -> None:
        self.follow(polled(1), polled(count=3, timed_out=True))
        gap = failure(self.reading, Gap)
        assert (gap.expected, gap.found) == (2, 3)

    def test_iterating_may_go_on_after_a_gap(self) -> None:
        follow = self.follow(polled(1, 2, 4))
        failure(self.reading, Gap)
        assert self.seen == []
        self.service.script = [polled(1, 2, 3, 4), Hold()]
        self.read(follow)
        assert self.seen == [1, 2, 3, 4]

    def test_a_service_that_is_away_is_waited_for(self) -> None:
        troubles: list[ChatError | None] = []
        self.world.dice = 0.999
        self.follow(*[Cut()] * 8, polled(1), polled(2), on_trouble=troubles.append)
        self.world.pass_time(0.1)
        assert len(self.service.asked) == 1
        self.world.pass_time(64)
        assert self.seen == [1, 2]
        assert len(troubles) == 9
        assert isinstance(troubles[0], Unreachable)
        assert troubles[-1] is None

    def test_every_passing_error_is_survived(self) -> None:
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
        self.world.pass_time(3)
        assert len(self.service.asked) == 1
        self.world.pass_time(60)
        assert self.seen == [1]

    def test_a_revoked_token_ends_it(self) -> None:
        self.follow(polled(1), problem(401, "unauthorized"))
        assert failure(self.reading, APIError).status == 401
        assert self.seen == [1]

    def test_another_history_is_raised(self) -> None:
        self.follow(problem(410, "cursor_epoch"), since="epochepoch-9")
        failure(self.reading, HistoryChanged)

    def test_another_history_is_begun_where_the_callback_says(self) -> None:
        told: list[HistoryChanged] = []

        def resync(changed: HistoryChanged) -> str:
            told.append(changed)
            return "0"

        self.follow(
            polled(8, 9),
            problem(410, "cursor_epoch"),
            polled(1, 2, cursor="secondsecond-2"),
            since="epochepoch-7",
            on_resync=resync,
        )
        self.world.pass_time(1)
        assert self.seen == [8, 9, 1, 2]
        assert told[0].code == "cursor_epoch"
        assert self.service.query("since", 2) == "0"

    def test_the_callback_may_take_its_time(self) -> None:
        decided: Deferred[str] = Deferred()
        self.follow(problem(410, "cursor_epoch"), polled(count=3), on_resync=lambda _: decided)
        assert len(self.service.asked) == 1
        decided.callback("now")
        self.world.pass_time(1)
        assert self.service.query("since", 1) == "now"

    def test_a_callback_that_insists_on_a_dead_cursor_does_not_spin(self) -> None:
        self.world.dice = 0.999
        self.follow(
            *[problem(410, "cursor_epoch")] * 50,
            since="deaddead-1",
            on_resync=lambda _: "deaddead-1",
        )
        self.world.pass_time(10)
        assert len(self.service.asked) < 10

    def test_a_proxy_that_cuts_held_polls_gets_shorter_ones(self) -> None:
        self.follow(Hold(), Hold())
        self.world.pass_time(20)
        self.world.answer(Cut())
        self.world.pass_time(1)
        assert self.service.query("wait") == "16"
        self.world.pass_time(10)
        self.world.answer(Canned(504, raw=b""))
        self.world.pass_time(1)
        assert float(self.service.query("wait") or 99) < 9

    def test_answers_that_do_not_get_through_become_shorter(self) -> None:
        self.follow(*[Cut()] * 9, *[polled(count=0, timed_out=True)] * 9)
        self.world.pass_time(90)
        limits = [int(self.service.query("limit", at) or 0) for at in range(19)]
        assert limits[:10] == [100, 50, 25, 12, 6, 3, 1, 1, 1, 1]
        assert limits[10:] == [2, 4, 8, 16, 32, 64, 100, 100, 100]

    def test_polls_become_longer_again_when_nothing_cuts_them(self) -> None:
        idle = polled(count=0, timed_out=True)
        self.follow(Hold(), *[idle] * 40)
        self.world.pass_time(6)
        self.world.answer(Cut())
        self.world.pass_time(1)
        assert self.service.query("wait", 1) == "5"
        assert self.service.query("wait") == "30"

    def test_a_poll_that_is_never_answered_is_given_up(self) -> None:
        self.follow(Hold(), polled(1))
        self.world.pass_time(44)
        assert self.seen == []
        self.world.pass_time(2)
        assert self.seen == [1]

    def test_a_stopping_server_names_the_pause(self) -> None:
        self.world.dice = 0.0
        self.follow(polled(count=0, waited=5000, headers={"Retry-After": "4"}), polled(1))
        self.world.pass_time(3.9)
        assert self.seen == []
        self.world.pass_time(0.2)
        assert self.seen == [1]

    def test_superseded_polls_do_not_chase_each_other(self) -> None:
        self.world.dice = 0.999
        answers = [polled(count=0, superseded=True, waited=2000)] * 50
        self.follow(*answers)
        self.world.pass_time(10)
        assert len(self.service.asked) < 10

    def test_a_server_that_does_not_hold_is_not_hammered(self) -> None:
        self.world.dice = 0.999
        self.follow(*[polled(count=0)] * 500)
        self.world.pass_time(30)
        assert len(self.service.asked) < 12

    def test_the_position_is_after_the_last_message_taken(self) -> None:
        self.service.script = [polled(1, 2, 3), Hold()]
        follow = self.world.client.follow("0")
        assert str(follow.position) == "0:0"
        success(self.world.start(follow.__anext__()))
        success(self.world.start(follow.__anext__()))
        assert follow.position == Position("0", 2)
        success(self.world.start(follow.__anext__()))
        assert follow.position == Position("epochepoch-3", 3)

    def test_a_position_in_the_middle_of_an_answer_is_gone_on_from(self) -> None:
        self.follow(polled(1, 2, 3), polled(4), since=Position("0", 2))
        assert self.service.query("since", 0) == "0"
        assert self.seen == [3, 4]

    def test_a_position_proves_that_nothing_is_missing(self) -> None:
        self.follow(polled(9), since=Position("epochepoch-7", 7))
        failure(self.reading, Gap)

    def test_empty_answers_move_the_position(self) -> None:
        follow = self.follow(polled(count=4), since="now")
        assert follow.position == Position("epochepoch-4", 4)

    def test_cancelling_ends_the_poll(self) -> None:
        self.follow()
        lost: list[object] = []
        _ = self.service.held[0].notifyFinish().addErrback(lost.append)
        self.reading.cancel()
        self.world.http.flush()
        failure(self.reading, CancelledError)
        assert len(lost) == 1
        assert self.world.clock.getDelayedCalls() == []
