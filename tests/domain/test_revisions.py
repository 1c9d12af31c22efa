"""Editing and deleting: what is checked, announced, and completed without the client."""

from __future__ import annotations

from pathlib import Path

import pytest
from twisted.internet.defer import Deferred

from chatd.domain.rate_limits import Rates
from chatd.errors import (
    InvalidBody,
    MessageDeleted,
    MessageNotFound,
    MessageTooLarge,
    RateLimited,
    StoreUnavailable,
    TooLate,
)
from chatd.model import EncodedRows, Message, ReadAfter, Session
from tests.doubles import SteppedExecutor, System, cancelled_everywhere, composed, result_of
from tests.test_metrics import value


class Changes:
    """Records what is announced to the subscriber of a system."""

    def __init__(self, system: System, monkeypatch: pytest.MonkeyPatch) -> None:
        self.found: list[tuple[int, int, int]] = []
        monkeypatch.setattr(system.subscriber, "changed", lambda *each: self.found.append(each))


def text_of(system: System, user_id: int, seq: int) -> str:
    """The text of a message as the store reads it."""
    [inbox] = system.wait_for(system.store.read([ReadAfter(user_id, seq - 1, 1)]))
    assert inbox is not None
    return inbox.messages[0].text


def test_a_change_is_announced_after_it_was_committed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with composed(tmp_path, worker=SteppedExecutor) as system:
        changes = Changes(system, monkeypatch)
        ann, bob = system.session("ann"), system.session("bob")
        system.send(ann, bob.user_id, "old")
        edit = system.start(system.revisions.edit(ann, bob.user_id, 1, "new"))
        assert changes.found == []
        system.writer.work()
        assert changes.found == []
        system.writer.deliver()
        assert changes.found == [(bob.user_id, 1, ann.user_id)]
        assert result_of(edit).text == "new"
        system.run(system.revisions.delete(ann, bob.user_id, 1))
        assert changes.found == [(bob.user_id, 1, ann.user_id)] * 2


def test_what_is_refused_is_not_announced(system: System, monkeypatch: pytest.MonkeyPatch) -> None:
    changes = Changes(system, monkeypatch)
    ann = system.session("ann")
    system.send(ann, ann.user_id, "old")
    system.run(system.revisions.delete(ann, ann.user_id, 1))
    changes.found.clear()
    with pytest.raises(MessageNotFound):
        system.run(system.revisions.edit(ann, ann.user_id, 2, "new"))
    with pytest.raises(MessageDeleted):
        system.run(system.revisions.edit(ann, ann.user_id, 1, "new"))
    with pytest.raises(InvalidBody):
        system.run(system.revisions.edit(ann, ann.user_id, 1, " "))
    with pytest.raises(MessageTooLarge):
        system.run(system.revisions.edit(ann, ann.user_id, 1, "x" * 16385))
    assert changes.found == []


def test_a_change_of_uncertain_outcome_is_announced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with composed(tmp_path, worker=SteppedExecutor) as system:
        changes = Changes(system, monkeypatch)
        ann = system.session("ann")
        system.send(ann, ann.user_id, "old")
        for problem in (StoreUnavailable("the disk is full", 1), RuntimeError("a fault")):
            edit = system.start(system.revisions.edit(ann, ann.user_id, 1, "new"))
            system.writer.fail(problem)
            with pytest.raises(type(problem)):
                result_of(edit)
        assert changes.found == [(ann.user_id, 1, ann.user_id)] * 2


def test_a_change_completes_and_is_announced_without_its_client(tmp_path: Path) -> None:
    for system in cancelled_everywhere(tmp_path, begin_edit):
        # It is submitted to the store at once.
        assert text_of(system, 1, 1) == "new"
        assert value(system.metrics, "chatd_changed_messages_total") == 1


def begin_edit(system: System) -> Deferred[Message]:
    """Start an edit of a message."""
    ann = system.session("ann")
    system.send(ann, ann.user_id, "old")
    return system.start(system.revisions.edit(ann, ann.user_id, 1, "new"))


def test_the_time_for_changes_is_limited(tmp_path: Path) -> None:
    with composed(tmp_path, edit_seconds=10) as system:
        ann = system.session("ann")
        system.send(ann, ann.user_id, "old")
        system.clock.advance(10)
        system.run(system.revisions.edit(ann, ann.user_id, 1, "new"))
        system.clock.advance(0.000001)
        with pytest.raises(TooLate, match="10 seconds"):
            system.run(system.revisions.delete(ann, ann.user_id, 1))


def test_changes_are_counted_like_messages(tmp_path: Path) -> None:
    with composed(tmp_path, rates=Rates()) as system:
        ann, bob = system.session("ann"), system.session("bob")
        system.send(ann, bob.user_id, "x")
        for number in range(199):
            system.run(system.revisions.edit(ann, bob.user_id, 1, f"{number}"))
        for call in (
            system.revisions.edit(ann, bob.user_id, 1, "x"),
            system.revisions.delete(ann, bob.user_id, 1),
            system.blocks.block(ann, bob.user_id),
            system.blocks.unblock(ann, bob.user_id),
        ):
            with pytest.raises(RateLimited):
                system.run(call)
        assert system.run(system.blocks.blocked(Session(ann.user_id))) == EncodedRows(0, "[]")
