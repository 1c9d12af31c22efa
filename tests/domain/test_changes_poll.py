"""Polls and streams with changes miss none, whenever it is committed."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest
from twisted.internet.defer import Deferred, fail

from chatd.domain.poll import Polled
from chatd.errors import StoreUnavailable, Unauthorized
from chatd.model import BEGINNING, Cursor, Session
from chatd.model_sync import MessageChange
from tests.conftest import LoggedFailures
from tests.domain.sinks import RecordingSink
from tests.doubles import SteppedExecutor, System, composed, fired, result_of


def each_step(folder: Path, last: int) -> Iterator[tuple[System, int]]:
    """Systems whose steps a test takes one by one, with a number of steps from 0 to `last`."""
    for step in range(last + 1):
        with composed(folder / f"{step}", worker=SteppedExecutor) as system:
            yield system, step


def poll(system: System, session: Session, since: Cursor | None) -> Deferred[Polled]:
    return Deferred.fromCoroutine(system.chats.poll(session, since, 10, 30, changes=True))


@pytest.mark.parametrize("first", [True, False], ids=["first use", "later"])
def test_a_message_that_is_sent_during_a_poll_ends_it(tmp_path: Path, first: bool) -> None:
    for system, step in each_step(tmp_path, 14):
        ann, bob = system.session("ann"), system.session("bob")
        since = None
        if not first:
            since = system.run(system.chats.poll(ann, None, 10, 0, changes=True)).cursor
        held = poll(system, ann, since)
        for _ in range(step):
            system.micro_step()
        sent = system.send(ann, bob.user_id, "x")
        system.settle()
        if first and not fired(held):
            # Its beginning, now, was after the message.
            system.send(ann, bob.user_id, "y")
            system.settle()
        polled = result_of(held)
        assert polled.found is not None
        [change] = polled.found.changes
        assert isinstance(change, MessageChange)
        if not first:
            assert change.message == sent


def test_a_stream_writes_what_is_sent_while_it_begins(tmp_path: Path) -> None:
    for system, step in each_step(tmp_path, 14):
        ann, bob = system.session("ann"), system.session("bob")
        sink = RecordingSink()
        opened = Deferred.fromCoroutine(
            system.chats.stream(ann, BEGINNING, sink, changes=True)
        ).addCallback(sink.attach)
        for _ in range(step):
            system.micro_step()
        sent = [system.send(ann, bob.user_id, f"{number}") for number in range(3)]
        received = system.send(bob, ann.user_id, "received")
        system.settle()
        result_of(opened).close()
        assert sink.messages == [received]
        assert sink.changes == [MessageChange("sent", each) for each in sent]


def test_a_deleted_account_ends_the_poll(tmp_path: Path) -> None:
    with composed(tmp_path / "x") as system:
        ann = system.session("ann")
        held = poll(system, ann, None)
        system.settle()
        assert not fired(held)
        system.run(system.accounts.delete(ann))
        with pytest.raises(Unauthorized):
            result_of(held)
        after = poll(system, ann, None)
        system.settle()
        with pytest.raises(Unauthorized):
            result_of(after)


def test_an_error_of_the_store_fails_the_poll(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with composed(tmp_path / "x") as system:
        ann = system.session("ann")
        problem = StoreUnavailable("the disk is full", 1)
        monkeypatch.setattr(system.store.sync, "changes", lambda _: fail(problem))
        held = poll(system, ann, None)
        system.settle()
        with pytest.raises(StoreUnavailable):
            result_of(held)
        assert system.is_idle()


def test_delivered_positions_are_written_again_after_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, logged_failures: LoggedFailures
) -> None:
    with composed(tmp_path / "x") as system:
        ann, bob = system.session("ann"), system.session("bob")
        deliveries = system.components.deliveries
        system.send(ann, bob.user_id, "x")
        with monkeypatch.context() as patch:
            problems: Iterator[Exception] = itertools.chain(
                [StoreUnavailable("the disk is full", 1), RuntimeError("a bug")]
            )
            patch.setattr(system.store.sync, "record_delivered", lambda _: fail(next(problems)))
            deliveries.note(bob.user_id, 1)
            system.settle()
            system.clock.advance(1)
        assert len(logged_failures.flush(RuntimeError)) == 1
        positions = system.wait_for(system.store.sync.peer_positions(ann.user_id, bob.user_id))
        assert positions.delivered == 0
        system.clock.advance(1)
        positions = system.wait_for(system.store.sync.peer_positions(ann.user_id, bob.user_id))
        assert positions.delivered == 1


def test_delivered_positions_are_written_when_the_service_stops(tmp_path: Path) -> None:
    with composed(tmp_path / "x") as system:
        ann, bob = system.session("ann"), system.session("bob")
        deliveries = system.components.deliveries
        for seq in (1, 2):
            system.send(ann, bob.user_id, "x")
            deliveries.note(bob.user_id, seq)
            system.settle()
        system.run(deliveries.stop())
        positions = system.wait_for(system.store.sync.peer_positions(ann.user_id, bob.user_id))
        assert positions.delivered == 2
        assert not system.timers()
