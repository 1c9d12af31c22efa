"""`Polling`: how long polls adapt to networks and services."""

from chatd.client import Gap, Position
from tests.client.following import Following
from tests.client.scripted import (
    Canned,
    Disconnect,
    Hold,
    failure,
    polled,
    success,
)


class TestPolling(Following):
    transport = "poll"

    def test_messages_arrive_in_order_and_cursors_are_passed_on(self) -> None:
        self.follow(polled(1, 2, count=5), polled(3, 4, 5), polled(6))
        assert self.seen == [1, 2, 3, 4, 5, 6]
        cursors = [self.service.query("since", at) for at in range(4)]
        assert cursors == ["0", "epochepoch-2", "epochepoch-5", "epochepoch-6"]
        assert self.service.query("wait") == "30"

    def test_a_timed_out_poll_is_repeated_at_once(self) -> None:
        self.follow(polled(count=0, timed_out=True, waited=30_000), polled(1))
        assert self.seen == [1]

    def test_a_gap_at_the_end_of_a_response_raises(self) -> None:
        self.follow(polled(1, 2, count=4, more=False))
        failure(self.reading, Gap)

    def test_an_empty_response_despite_new_messages_is_a_gap(self) -> None:
        self.follow(polled(1), polled(count=3, timed_out=True))
        gap = failure(self.reading, Gap)
        assert (gap.expected, gap.found) == (2, 3)

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

    def test_a_server_that_does_not_hold_polls_is_not_flooded(self) -> None:
        self.harness.random_value = 0.999
        self.follow(*[polled(count=0)] * 500)
        self.harness.advance(30)
        assert len(self.service.requests) < 12

    def test_the_position_follows_the_last_message_taken(self) -> None:
        follow = self.open(polled(1, 2, 3))
        assert str(follow.position) == "0"
        success(self.harness.start(follow.__anext__()))
        success(self.harness.start(follow.__anext__()))
        assert follow.position == Position("0", 2)
        success(self.harness.start(follow.__anext__()))
        assert follow.position == Position("epochepoch-3", 3)
