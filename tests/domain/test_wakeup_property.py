"""Delivery under arbitrary interleavings: no message is lost, repeated or out of order.

Hypothesis chooses the order in which sends, polls, streams, both threads of the store, the bus,
time and disconnecting clients proceed. Each follower passes its cursors on, as the contract
requires.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from chatd.domain.message_stream import MessageStream
from chatd.domain.poll import Polled
from chatd.errors import StoreUnavailable
from chatd.model import BEGINNING, Appended, Cursor, Session
from tests.domain.sinks import RecordingSink
from tests.doubles import SteppedExecutor, System, cancel, composed, result_of, scratch
from tests.examples import examples

USERS = (1, 2)


@dataclass
class Follower:
    """A client with its cursor, `None` until its first response."""

    session: Session
    cursor: Cursor | None
    polling: Deferred[Polled] | None = None
    limit: int = 0
    seen: list[int] = field(default_factory=list)
    first: int = 1


@dataclass
class StreamFollower:
    """A client that has streams, one after the other, and continues each where the last ended."""

    session: Session
    cursor: Cursor | None
    sink: RecordingSink
    opening: Deferred[MessageStream] | None = None
    seen: list[int] = field(default_factory=list)
    first: int = 1

    @property
    def stream(self) -> MessageStream | None:
        """The stream, once it is open."""
        return self.sink.stream

    def collect(self) -> None:
        """Check what the stream has written: the next messages, in order."""
        stream = self.stream
        if stream is None:
            if self.opening is not None and gave_up(self.opening):
                self.opening = None
            return
        if self.cursor is None:
            self.cursor = stream.cursor
            self.first = stream.cursor.seq + 1
        seqs, self.sink.messages = self.sink.seqs, []
        after = self.cursor.seq
        assert seqs == list(range(after + 1, after + 1 + len(seqs)))
        assert stream.seq == after + len(seqs)
        self.seen += seqs
        self.cursor = Cursor(stream.cursor.epoch, stream.seq, stream.stamp)
        if self.sink.ended is not None:
            self.opening = None
            self.sink = RecordingSink()

    def close(self) -> None:
        """Disconnect."""
        self.collect()
        opening, self.opening = self.opening, None
        if opening is not None:
            if self.stream is None:
                cancel(opening)
            else:
                self.stream.close()
            self.sink = RecordingSink()


def gave_up(deferred: Deferred[Any]) -> bool:
    """Whether a read has waited too long for its thread; the client repeats it then."""
    if isinstance(getattr(deferred, "result", None), Failure):
        with pytest.raises(StoreUnavailable):
            result_of(deferred)
        return True
    return False


class Simulation:
    """A system, its clients, and the steps that they can take."""

    def __init__(self, system: System, followers: list[tuple[int, bool]]) -> None:
        self.system = system
        for name in ("ann", "bob"):
            system.account(name)
        self.followers = [
            Follower(Session(user), BEGINNING if beginning else None)
            for user, beginning in followers
        ]
        self.streamers = [
            StreamFollower(Session(user), BEGINNING if beginning else None, RecordingSink())
            for user, beginning in followers
        ]
        self.sends: list[Deferred[Appended]] = []

    def send(self, number: int) -> None:
        sender, recipient = USERS[number % 2], USERS[number // 2 % 2]
        key = "key" if number > 9 else None
        sent = Deferred.fromCoroutine(
            self.system.chats.send(Session(sender), recipient, f"to {recipient}", key)
        )
        sent.addErrback(lambda _: None)
        self.sends.append(sent)

    def commit(self, number: int) -> None:
        """Send one or two messages and run their transaction without interruption."""
        self.send(number % 10)
        if number % 3:
            self.send(9 - number % 10)
        self.system.turn()
        while self.system.writer.step():
            self.system.turn()
        assert self.sends[-1].called

    def sender_disconnects(self, number: int) -> None:
        if self.sends:
            cancel(self.sends[-1 - number % len(self.sends)])

    def poll(self, number: int) -> None:
        follower = self.followers[number % len(self.followers)]
        if follower.polling is None:
            limit, wait = ((100, 30.0), (100, 30.0), (2, 5.0), (1, 0.0))[number // 3]
            follower.limit = limit
            follower.polling = Deferred.fromCoroutine(
                self.system.chats.poll(follower.session, follower.cursor, limit, wait)
            )

    def hold(self, number: int) -> None:
        """Poll without interruption until it is held, or until its inbox was read."""
        self.poll(number)
        self.system.turn()
        if number % 2:
            self.work(0)
            return
        while self.system.reader.step():
            self.system.turn()

    def client_disconnects(self, number: int) -> None:
        """Disconnect a client before it has received the response with the new cursor."""
        follower = self.followers[number % len(self.followers)]
        if follower.polling is not None:
            cancel(follower.polling)
            follower.polling = None

    def stream(self, number: int) -> None:
        """Open a stream, or close it."""
        streamer = self.streamers[number % len(self.streamers)]
        if streamer.opening is not None and number > 8:
            streamer.close()
        elif streamer.opening is None:
            streamer.sink = RecordingSink(takes=1 + number % 3)
            streamer.opening = streamer.sink.start(self.system, streamer.session, streamer.cursor)

    def pause(self, number: int) -> None:
        """Have the transport of a stream take no or few messages, or take them again."""
        streamer = self.streamers[number % len(self.streamers)]
        streamer.sink.room = (1, 2, 1_000_000)[number % 3]
        if streamer.stream is not None:
            streamer.stream.resume()

    def turn(self, number: int) -> None:
        self.system.turn()

    def work(self, number: int) -> None:
        worker = self.system.writer if number % 2 else self.system.reader
        if worker.pending:
            worker.work()

    def deliver(self, number: int) -> None:
        worker = self.system.writer if number % 2 else self.system.reader
        if worker.done:
            worker.deliver()

    def delay(self, number: int) -> None:
        """Toggle whether wake-ups are delayed."""
        self.system.bus.hold = not self.system.bus.hold

    def wake(self, number: int) -> None:
        """Deliver a delayed wake-up, not necessarily the first one."""
        held = self.system.bus.held
        if held:
            held.rotate(-(number % len(held)))
            self.system.bus.release()

    def spurious_wake(self, number: int) -> None:
        self.system.subscriber.wake([USERS[number % 2]])

    def read_behind(self, number: int) -> None:
        """Open a stream, and have it read; the result, which commits overtake, is not delivered."""
        number %= len(self.streamers)
        streamer = self.streamers[number]
        if streamer.opening is None:
            self.stream(number)
            self.system.turn()
            while self.system.reader.step():
                self.system.turn()
        self.system.subscriber.wake([streamer.session.user_id])
        self.system.turn()
        self.work(0)

    def pass_time(self, number: int) -> None:
        self.system.clock.advance((0.001, 1.0, 5.0, 31.0)[number // 3])

    def collect(self) -> None:
        """Check the results of polls: the next messages in order, up to the limit."""
        for follower in self.followers:
            polling = follower.polling
            if polling is None or not polling.called:
                continue
            follower.polling = None
            if gave_up(polling):
                continue
            polled = result_of(polling)
            seqs = [message.seq for message in polled.messages]
            assert len(seqs) <= follower.limit
            assert all(
                message.received_by == follower.session.user_id for message in polled.messages
            )
            if follower.cursor is None:
                follower.first = polled.cursor.seq - len(seqs) + 1
                after = follower.first - 1
            else:
                after = follower.cursor.seq
            assert seqs == list(range(after + 1, after + 1 + len(seqs)))
            assert polled.cursor.seq == after + len(seqs)
            assert polled.count >= polled.cursor.seq
            follower.seen += seqs
            follower.cursor = polled.cursor

        for streamer in self.streamers:
            streamer.collect()

    def ends(self) -> dict[int, int]:
        return self.system.wait_for(self.system.store.last_seqs(USERS))

    def finish(self, wake_first: bool) -> None:
        system = self.system
        for streamer in self.streamers:
            streamer.sink.room = 1_000_000
            if streamer.stream is not None:
                streamer.stream.resume()
        # Deliver everything: no poll may now wait although there is a message for it.
        if not wake_first:
            system.settle()
        while system.bus.held:
            system.bus.release()
        system.settle()
        while system.bus.held:
            system.bus.release()
            system.settle()
        self.collect()
        ends = self.ends()
        for user, waiters in system.notifier.held_by_user().items():
            assert [waiter.seq for waiter in waiters] == [ends[user]] * len(waiters)
        streams = [each for each in self.streamers if each.stream and each.stream.held]
        assert len(system.chats._polls.deadlines) == system.notifier.held - len(streams)
        for streamer in self.streamers:
            streamer.close()
            # The rest is read by one more stream, without pauses.
            streamer.sink = RecordingSink()
            streamer.opening = streamer.sink.start(system, streamer.session, streamer.cursor)
            system.settle()
            streamer.close()
            assert streamer.cursor is not None
            assert streamer.cursor.seq == ends[streamer.session.user_id]
            assert streamer.seen == list(range(streamer.first, streamer.cursor.seq + 1))
        # Every send has completed.
        assert all(sent.called for sent in self.sends)
        # Then all waits time out.
        system.clock.advance(60)
        system.settle()
        assert all(each.polling is None or each.polling.called for each in self.followers)
        self.collect()
        assert system.is_idle()
        for follower in self.followers:
            while True:
                # Read the rest, two messages at a time, without waiting.
                follower.limit = 2
                follower.polling = Deferred.fromCoroutine(
                    system.chats.poll(follower.session, follower.cursor, 2, 0)
                )
                system.settle()
                self.collect()
                assert follower.cursor is not None
                if follower.cursor.seq == ends[follower.session.user_id]:
                    break
            assert follower.seen == list(range(follower.first, follower.cursor.seq + 1))
        assert self.ends() == ends
        assert system.is_idle()


# A step and a number, which the step maps to its own range. Important steps are more frequent,
# because others hide the few orders in which something could go wrong.
steps = st.tuples(
    st.sampled_from(
        [
            *["send"] * 4,
            *["poll"] * 4,
            *["stream"] * 3,
            "pause",
            *["turn"] * 4,
            *["work"] * 4,
            *["deliver"] * 4,
            *["commit", "hold", "read_behind"] * 2,
            *["wake"] * 2,
            *["delay", "client_disconnects", "sender_disconnects", "spurious_wake", "pass_time"],
        ]
    ),
    st.integers(0, 11),
)


@settings(max_examples=examples(40, deep=160))
@given(
    followers=st.lists(st.tuples(st.sampled_from(USERS), st.booleans()), min_size=1, max_size=3),
    steps=st.lists(steps, min_size=5, max_size=60),
    max_held=st.sampled_from([100, 100, 100, 2]),
    read_cached=st.sampled_from([False, False, True]),
    wake_first=st.booleans(),
)
def test_every_message_is_delivered_once_and_in_order(
    followers: list[tuple[int, bool]],
    steps: list[tuple[str, int]],
    max_held: int,
    read_cached: bool,
    wake_first: bool,
) -> None:
    with scratch() as folder:
        options: dict[str, Any] = {"max_held": max_held, "read_cached": read_cached}
        with composed(folder, worker=SteppedExecutor, **options) as system:
            simulation = Simulation(system, followers)
            for name, number in steps:
                getattr(simulation, name)(number)
                simulation.collect()
            simulation.finish(wake_first)
