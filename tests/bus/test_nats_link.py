"""The bus in memory, driven by a clock: what makes it wake and check whom."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from twisted.internet.task import Clock

import chatd.bus.announcer
from chatd.bus.announcer import LOOK_AGAIN_SECONDS, NatsAnnouncer
from chatd.bus.interest import Interest
from chatd.bus.nats import COALESCE_SECONDS, NatsBus
from chatd.bus.nats_link import PONG_SECONDS
from chatd.bus.peers import SILENT_SECONDS
from chatd.errors import StartError
from chatd.model import Message
from chatd.nats.address import parse
from chatd.nats.connector import Connector
from chatd.postgres.notify_payloads import (
    CommitNotice,
    MessageNotice,
    MessagesNotice,
    RemovedNotice,
)
from tests.contracts.bus import Recorder
from tests.contracts.helpers import digest
from tests.doubles import result_of
from tests.nats.server import FakeServer

BEATS = b"chatd.aaaaaaaa.h"
REVOCATIONS = b"chatd.aaaaaaaa.r"


class Harness:
    """A bus at a `FakeServer`, with what it calls."""

    def __init__(self, url: str = "nats://a") -> None:
        self.clock = Clock()
        self.server = FakeServer()
        self.recorder = Recorder()
        self.notices: list[CommitNotice] = []
        self.connected: list[bool] = []
        self.lags: list[float] = []
        self.interest = Interest(self.clock.seconds)
        self.announcer = NatsAnnouncer(self.clock)
        address = parse(url)
        self.bus = NatsBus(
            address,
            Connector(address, self.clock, lambda: 0.0, "1.0", lambda server: self.server),
            reactor=self.clock,
            random=lambda: 0.0,
            epoch=lambda: "aaaaaaaa",
            interest=self.interest,
            announcer=self.announcer,
            listener=self,
            observe_lag=self.lags.append,
        )

    def on_connected(self) -> None:
        self.connected.append(True)

    def on_disconnected(self) -> None:
        self.connected.append(False)

    def on_notice(self, notice: CommitNotice) -> None:
        self.notices.append(notice)

    def start(self) -> None:
        """Start the bus, and wait until nothing is woken any more."""
        result_of(self.bus.start(self.recorder))
        self.pass_time(4)
        self.recorder.wake_all_calls = 0

    def pass_time(self, seconds: float) -> None:
        """Let the time pass in small steps."""
        self.clock.pump([0.125] * round(8 * seconds))

    def beat(self, number: int, generation: int = 1, revocations: int = 0) -> None:
        """Another process sends a heartbeat."""
        self.server.message(b"h", b"other:%d:%d:%d" % (generation, number, revocations))

    @property
    def woken(self) -> int:
        """How often all were woken since this was asked last."""
        calls, self.recorder.wake_all_calls = self.recorder.wake_all_calls, 0
        return calls


@pytest.fixture
def harness() -> Iterator[Harness]:
    made = Harness()
    yield made
    result_of(made.bus.stop())
    assert not made.clock.getDelayedCalls()


def test_a_new_process_wakes_all_once_its_subscriptions_have_spread(harness: Harness) -> None:
    result_of(harness.bus.start(harness.recorder))
    assert harness.woken == 1
    harness.pass_time(1.4)
    assert harness.woken == 0
    harness.pass_time(1)
    assert harness.woken == 1
    harness.pass_time(10)
    assert harness.woken == 0
    assert harness.lags


def test_heartbeats_are_numbered(harness: Harness) -> None:
    harness.start()
    node = harness.announcer._node.encode()
    payloads = harness.server.take(BEATS)
    assert payloads == [b"%b:1:%d:0" % (node, number) for number in range(1, 6)]
    harness.announcer.announce_sessions_changed(7)
    harness.announcer.announce_revoked(7, b"\x01")
    harness.announcer.announce_revoked(7, None)
    assert harness.server.take(REVOCATIONS) == [
        b"%b:1:1:7:?" % node,
        b"%b:1:2:7:01" % node,
        b"%b:1:3:7:*" % node,
    ]
    harness.pass_time(1)
    assert harness.server.take(BEATS) == [b"%b:1:6:3" % node]
    result_of(harness.bus.stop())
    assert harness.server.take(BEATS) == [b"%b:1:." % node]


def test_gaps_wake_all_but_not_too_often(harness: Harness) -> None:
    harness.start()
    harness.beat(1)
    harness.beat(2)
    assert harness.woken == 0
    for number in (4, 6, 8):
        harness.beat(number)
    assert harness.bus.gaps == 3
    assert harness.woken == 1
    harness.pass_time(COALESCE_SECONDS)
    assert harness.woken == 1
    harness.pass_time(COALESCE_SECONDS)
    assert harness.woken == 0
    # What is cached may be out of date as well.
    assert harness.connected[-2:] == [True, True]


def test_a_silent_process_wakes_all(harness: Harness) -> None:
    harness.start()
    harness.beat(1)
    assert harness.bus.peers == 1
    harness.pass_time(SILENT_SECONDS - 0.2)
    assert harness.woken == 0
    harness.pass_time(0.8)
    assert harness.woken == 1
    harness.pass_time(10)
    assert harness.woken == 0
    assert harness.bus.peers == 0


def test_a_process_that_was_stopped_itself_excuses_the_others(harness: Harness) -> None:
    harness.start()
    harness.beat(1)
    harness.clock.advance(60)
    assert harness.woken == 0
    harness.beat(2)
    assert harness.woken == 0
    assert harness.bus.reconnects == 0
    harness.pass_time(SILENT_SECONDS + 1)
    assert harness.woken == 1


def test_a_goodbye_wakes_nobody(harness: Harness) -> None:
    harness.start()
    harness.beat(1)
    harness.server.message(b"h", b"other:1:.")
    harness.pass_time(10)
    assert harness.woken == 0


def test_a_missing_revocation_wakes_all(harness: Harness) -> None:
    harness.start()
    harness.beat(1)
    token = digest("1")
    harness.server.message(b"r", b"other:1:1:7:" + token.hex().encode())
    harness.server.message(b"r", b"other:1:2:8:*")
    harness.server.message(b"r", b"other:1:3:9:?")
    assert harness.recorder.revocations == [(7, token), (8, None)]
    assert harness.recorder.session_changes == [9]
    assert harness.woken == 0
    harness.beat(2, revocations=4)
    assert harness.woken == 1


def test_removals_are_passed_on_and_counted(harness: Harness) -> None:
    harness.start()
    harness.beat(1)
    harness.server.message(b"r", b"other:1:1:x:7.3,8.9")
    assert harness.notices == [RemovedNotice(((7, 3), (8, 9)))]
    harness.beat(2, revocations=1)
    assert harness.woken == 0
    harness.announcer.announce_removed([(7, 3)] * 501)
    first, second = harness.server.take(REVOCATIONS)
    assert first.count(b",") == 499
    assert second.endswith(b":1:2:x:7.3")


def test_new_users_are_checked_together_after_a_second(harness: Harness) -> None:
    harness.start()
    harness.pass_time(0.3)
    for user_id in (1, 2):
        harness.interest.watch(user_id)
    assert harness.server.subscribed[b"chatd.aaaaaaaa.u.1"] == b"1"
    harness.pass_time(1)
    assert not harness.recorder.checked
    harness.pass_time(1)
    assert harness.recorder.checked == {1: 1, 2: 1}
    harness.pass_time(10)
    assert harness.recorder.checked == {1: 1, 2: 1}
    assert harness.woken == 0


def test_a_subscription_is_checked_only_once_the_server_has_confirmed_it(
    harness: Harness,
) -> None:
    harness.start()
    harness.interest.watch(1)
    harness.server.stopped = True
    harness.pass_time(PONG_SECONDS - 0.5)
    assert not harness.recorder.checked
    harness.server.stopped = False
    harness.server.handle()
    harness.pass_time(2)
    assert harness.recorder.checked == {1: 1}


def test_users_are_unsubscribed(harness: Harness) -> None:
    harness.start()
    harness.interest.watch(1)
    harness.interest.unwatch(1)
    harness.pass_time(91)
    assert b"chatd.aaaaaaaa.u.1" not in harness.server.subscribed
    # A message that was under way is ignored.
    harness.server.send(b"MSG chatd.aaaaaaaa.u.1 1 8\r\nm[[1,1]]\r\n")
    assert harness.notices == []
    assert not harness.recorder.woken


def test_events_of_a_user(harness: Harness) -> None:
    harness.start()
    harness.interest.watch(1)
    harness.server.message(b"1", b'm[[1,5,2,9,"x"],[1,6]]')
    assert harness.notices == [
        MessagesNotice((MessageNotice(1, 5, 2, 9, "x"), MessageNotice(1, 6)))
    ]
    assert harness.recorder.woken == {1: 1}
    harness.server.message(b"1", b"l")
    assert harness.recorder.told == {1: 1}
    harness.server.message(b"1", b"c5:2")
    assert harness.recorder.changes == [(1, 5, 2)]
    harness.recorder.checked.clear()
    harness.pass_time(3)
    harness.server.message(b"1", b"w")
    harness.pass_time(1)
    assert harness.recorder.checked[1] > 0


def test_commits_are_published_by_recipient(harness: Harness) -> None:
    harness.start()
    harness.announcer.announce_messages([Message(1, 5, 2, 9, "x"), Message(3, 1, 2, 9, "y" * 9)])
    assert harness.server.take(b"chatd.aaaaaaaa.u.1") == [b'm[[1,5,2,9,"x"]]']
    assert harness.server.take(b"chatd.aaaaaaaa.u.3") == [b'm[[3,1,2,9,"yyyyyyyyy"]]']
    harness.announcer.announce_changes([1])
    harness.announcer.announce_changed(1, 5, 2)
    assert harness.server.take(b"chatd.aaaaaaaa.u.1") == [b"l", b"c5:2"]


def test_a_connection_that_is_lost_is_replaced(harness: Harness) -> None:
    harness.start()
    harness.interest.watch(1)
    harness.server.kill()
    assert "lost: Connection was closed cleanly" in (harness.bus.problem() or "")
    assert harness.connected[-1:] == [False]
    harness.announcer.announce_changes([1])
    harness.pass_time(5)
    assert "cannot connect to NATS: a:4222: Connection was refused" in (harness.bus.problem() or "")
    assert harness.woken == 0
    harness.server.up = True
    harness.server.take(BEATS)
    harness.pass_time(2)
    assert harness.bus.problem() is None
    assert harness.connected[-1:] == [True]
    assert harness.bus.reconnects == 1
    assert harness.server.subscribed[b"chatd.aaaaaaaa.u.1"] == b"1"
    # Others notice that they have missed something.
    assert harness.server.take(BEATS)[0].endswith(b":2:1:0")
    assert harness.woken >= 1
    harness.pass_time(5)
    assert harness.woken == 1
    harness.pass_time(10)
    assert harness.woken == 0


def test_a_server_that_does_not_answer_is_left(harness: Harness) -> None:
    harness.start()
    harness.server.stopped = True
    harness.pass_time(PONG_SECONDS + 1.5)
    assert "no answer within" in (harness.bus.problem() or "")
    harness.server.stopped = False
    harness.pass_time(3)
    assert harness.bus.problem() is None
    assert harness.bus.reconnects == 1


def test_a_server_that_is_going_to_stop_is_left(harness: Harness) -> None:
    harness.start()
    harness.server.tell_info(ldm=True)
    assert "going to stop" in (harness.bus.problem() or "")
    harness.pass_time(1)
    assert harness.bus.problem() is None
    assert harness.server.connections == 2


def test_an_error_of_the_server_is_reported(harness: Harness) -> None:
    harness.start()
    harness.server.send(b"-ERR 'Permissions Violation for Subscription to \"x\"'\r\n")
    assert "Permissions Violation" in (harness.bus.problem() or "")


def test_a_server_that_stops_while_subscribing(harness: Harness) -> None:
    harness.start()
    harness.server.kill()
    harness.server.up = True
    harness.pass_time(0.1)
    assert harness.bus.problem() is None


def test_starting_fails_without_a_secret() -> None:
    harness = Harness("nats://u:s3cret@a")
    harness.server.up = False
    with pytest.raises(StartError, match="cannot use NATS at nats://a:4222: a:4222: Conn") as no:
        result_of(harness.bus.start(harness.recorder))
    assert "s3cret" not in str(no.value)
    assert harness.bus.problem()
    result_of(harness.bus.stop())
    assert not harness.clock.getDelayedCalls()


def test_unknown_outcomes_are_looked_for_again_and_again(harness: Harness) -> None:
    harness.start()
    harness.interest.watch(1)
    harness.pass_time(4)
    harness.recorder.checked.clear()
    harness.announcer.announce_unknown({1})
    harness.pass_time(1)
    assert harness.recorder.checked == {1: 1}
    assert harness.server.take(b"chatd.aaaaaaaa.u.1") == [b"w"]
    harness.pass_time(sum(LOOK_AGAIN_SECONDS) + 1)
    assert harness.recorder.checked == {1: 1 + len(LOOK_AGAIN_SECONDS)}
    harness.announcer.announce_unknown({7}, sessions=True)
    assert harness.recorder.session_changes == [7]
    assert len(harness.server.take(REVOCATIONS)) == 1


def test_not_too_many_unknown_outcomes_are_remembered(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chatd.bus.announcer, "MAX_UNKNOWN", 20)
    harness.start()
    harness.announcer.announce_unknown(range(1, 22))
    assert harness.announcer._waiting == 0
    for start in range(0, 60, 10):
        harness.announcer.announce_unknown(range(start, start + 10))
    assert harness.announcer._waiting == 20


def test_stopping_while_the_server_does_not_answer() -> None:
    harness = Harness()
    harness.start()
    harness.server.kill()
    harness.server.up = harness.server.stopped = True
    harness.pass_time(0.2)
    result_of(harness.bus.stop())
    assert not harness.clock.getDelayedCalls()
    assert harness.bus.problem() == "the bus is stopped"
