"""Erasures: in the background, after a restart, and with a store that fails."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from twisted.internet.defer import Deferred, fail

from chatd.domain.erasures import FIRST_STEPS, LOOK_SECONDS, PAUSE_SECONDS
from chatd.errors import StoreUnavailable
from chatd.model import Draft, Erased, Session
from chatd.store.erasure_statements import ERASE_MESSAGES, LATE_SECONDS
from tests.conftest import LoggedFailures
from tests.doubles import SteppedExecutor, System, composed, result_of
from tests.store.sqlite.database import Database, count

LARGE = (FIRST_STEPS + 2) * ERASE_MESSAGES


@pytest.fixture
def system(tmp_path: Path) -> Iterator[System]:
    """A system whose threads run inline."""
    with composed(tmp_path) as system:
        yield system


def send(system: System, sender: Session, recipient: Session, count: int) -> None:
    draft = Draft(sender.user_id, recipient.user_id, "secret")
    system.wait_for(system.store.append([draft] * count))


def left(folder: Path) -> int:
    """How many messages still have their text."""
    return count(Database(folder), "SELECT count(*) FROM message WHERE text <> ''")


def test_a_small_account_is_erased_before_the_answer(system: System, tmp_path: Path) -> None:
    ann, bob = system.session("ann"), system.session("bob")
    send(system, ann, bob, 5)
    assert system.run(system.accounts.delete(ann, erase=True)) is True
    assert left(tmp_path) == 0
    assert system.timers() == []


def test_a_large_account_is_erased_with_pauses(system: System, tmp_path: Path) -> None:
    ann, bob = system.session("ann"), system.session("bob")
    send(system, ann, bob, LARGE)
    assert system.run(system.accounts.delete(ann, erase=True)) is False
    # The first step in the background begins at once.
    assert left(tmp_path) == ERASE_MESSAGES
    system.clock.advance(PAUSE_SECONDS)
    assert left(tmp_path) == 0
    system.clock.pump([PAUSE_SECONDS] * 3)
    assert system.timers() == []


def test_steps_wait_for_other_writes(tmp_path: Path) -> None:
    with composed(tmp_path, worker=SteppedExecutor) as system:
        ann, bob, cat = (system.session(name) for name in ("ann", "bob", "cat"))
        send(system, ann, bob, LARGE)
        deletion = system.start(system.accounts.delete(ann, erase=True))
        system.writer.step()
        assert system.writer.pending == 2  # The purge of the inbox, and the first step.
        sending = system.start(system.chats.send(cat, bob.user_id, "hai"))
        system.turn()
        for _ in range(3):
            assert system.writer.step()
        assert sending.called
        assert not deletion.called
        assert system.wait_for(deletion) is False


def test_another_process_finishes_what_was_begun(tmp_path: Path) -> None:
    with composed(tmp_path) as system:
        ann, bob = system.session("ann"), system.session("bob")
        send(system, ann, bob, LARGE)
        system.run(system.accounts.delete(ann, erase=True))
    assert left(tmp_path) == ERASE_MESSAGES
    with composed(tmp_path) as system:
        system.components.erasures.start()
        assert left(tmp_path) == 0
        send(system, ann, bob, 1)
        system.clock.advance(LATE_SECONDS)
        system.clock.advance(LOOK_SECONDS)
        assert left(tmp_path) == 0


def test_stopping_waits_for_the_step_that_is_running(tmp_path: Path) -> None:
    with composed(tmp_path, worker=SteppedExecutor) as system:
        erasures = system.components.erasures
        ann, bob = system.session("ann"), system.session("bob")
        send(system, ann, bob, LARGE)
        system.run(system.accounts.delete(ann, erase=True))
        system.clock.advance(PAUSE_SECONDS)
        assert system.writer.pending == 1
        stopping = system.start(erasures.stop())
        assert not stopping.called
        system.wait_for(stopping)
        assert system.timers() == []
        # Stopped before it is asked.
        dan = system.session("dan")
        assert system.run(system.accounts.delete(dan, erase=True)) is True


@pytest.mark.parametrize("error", [StoreUnavailable("full", 1), OSError("broken")])
def test_a_step_that_fails_is_repeated_later(
    system: System,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    logged_failures: LoggedFailures,
    error: Exception,
) -> None:
    erasures = system.components.erasures
    ann, bob = system.session("ann"), system.session("bob")
    send(system, ann, bob, 3)

    def broken(user_id: int | None = None) -> Deferred[Erased]:
        return fail(error)

    with monkeypatch.context() as patch:
        patch.setattr(system.store, "erase", broken)
        deletion = system.start(system.accounts.delete(ann, erase=True))
        assert result_of(deletion) is False
        erasures.start()
    assert len(logged_failures.flush(OSError)) == (3 if isinstance(error, OSError) else 0)
    assert left(tmp_path) == 3
    system.clock.advance(LOOK_SECONDS)
    assert left(tmp_path) == 0


def test_steps_of_several_accounts_do_not_queue_up(tmp_path: Path) -> None:
    with composed(tmp_path, worker=SteppedExecutor) as system:
        senders = [system.session(f"user{number}") for number in range(10)]
        bob = system.session("bob")
        for sender in senders:
            send(system, sender, bob, 3)
        deletions = [system.start(system.accounts.delete(each, erase=True)) for each in senders]
        most = 0
        while not all(each.called for each in deletions):
            most = max(most, system.writer.pending)
            system.writer.step()
            system.turn()
        # A few deletions, a step, and a purge.
        assert most <= system.store.parallel + 2
        assert [result_of(each) for each in deletions] == [True] * 10
        system.settle()
        assert left(tmp_path) == 0
