"""Batches by lane."""

from __future__ import annotations

from collections.abc import Sequence

from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock

from chatd.domain.batch import Batcher
from chatd.domain.lane_batcher import LaneBatcher
from tests.doubles import fired, result_of


class Lanes:
    """Batches of words, whose lanes are their lengths; those of a `held` lane do not end."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.calls: list[list[str]] = []
        self.held: Deferred[list[str]] = Deferred()
        self.batcher: LaneBatcher[str, str] = LaneBatcher(
            self._run,
            len,
            lambda run: Batcher(run, self.clock, max_queued=10, max_batch_size=10),
        )

    def _run(self, words: Sequence[str], within: float) -> Deferred[list[str]]:
        self.calls.append(list(words))
        return self.held if len(words[0]) == 2 else succeed([word.upper() for word in words])


def test_a_lane_that_is_slow_holds_up_no_other() -> None:
    lanes = Lanes()
    slow = lanes.batcher.submit("ab")
    others = [lanes.batcher.submit(word) for word in ("a", "abc", "b")]
    assert lanes.batcher.queued == 4
    lanes.clock.advance(0)
    assert sorted(lanes.calls) == [["a", "b"], ["ab"], ["abc"]]
    assert [result_of(each) for each in others] == ["A", "ABC", "B"]
    assert not slow.called
    idle = lanes.batcher.wait_idle()
    assert not fired(idle)
    lanes.held.callback(["AB"])
    assert result_of(slow) == "AB"
    assert fired(idle)
    assert lanes.batcher.queued == 0


def test_receivers_can_be_given() -> None:
    lanes = Lanes()
    receiver: Deferred[str] = Deferred()
    lanes.batcher.enqueue("a", receiver)
    lanes.clock.advance(0)
    assert result_of(receiver) == "A"
