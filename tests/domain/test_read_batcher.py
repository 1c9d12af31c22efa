"""Reads: networks and accounts in turn, and only what somebody waits for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from chatd.domain.batch import DELIVER_SECONDS
from chatd.domain.read_batcher import ReadBatcher
from tests.doubles import cancel, fired, result_of


class Read(NamedTuple):
    """A read of an account, which is used from a network."""

    owner: str
    weight: int
    network: str = "home"


Calling = tuple[list[Read], Deferred[list[Read]]]


def reads(clock: Clock, **options: int) -> tuple[ReadBatcher[Read, Read], list[Calling]]:
    """A batcher of reads, and the calls that it has made."""
    made: list[Calling] = []

    def run(items: Sequence[Read], within: float) -> Deferred[list[Read]]:
        result: Deferred[list[Read]] = Deferred()
        made.append((list(items), result))
        return result

    batcher: ReadBatcher[Read, Read] = ReadBatcher(
        run,
        clock,
        max_queued=options.get("max_queued", 100),
        max_batch_size=options.get("max_batch_size", 10),
        owner=lambda read: read.owner,
        group=lambda read: read.network,
        weigh=lambda read: read.weight,
        max_weight=options.get("max_weight", 100),
    )
    return batcher, made


def test_reads_of_accounts_take_turns() -> None:
    clock = Clock()
    batcher, made = reads(clock, max_batch_size=3)
    for owner in "aaaab":
        batcher.submit(Read(owner, 1))
    clock.advance(0)
    assert [read.owner for read in made[0][0]] == ["a", "b", "a"]


def test_networks_take_turns_however_many_accounts_they_have() -> None:
    clock = Clock()
    batcher, made = reads(clock, max_batch_size=4)
    for owner in "abcde":
        batcher.submit(Read(owner, 1))
    for owner in "xy":
        batcher.submit(Read(owner, 1, "elsewhere"))
    clock.advance(0)
    assert [read.owner for read in made[0][0]] == ["a", "x", "b", "y"]


def test_a_call_with_large_results_has_few_reads() -> None:
    clock = Clock()
    batcher, made = reads(clock, max_weight=100)
    pending = [batcher.submit(Read("a", weight)) for weight in (60, 60, 1, 200, 1)]
    clock.advance(0)
    for number in range(3):
        items, result = made[number]
        result.callback(items)
        clock.advance(0)
    assert [[read.weight for read in items] for items, _ in made] == [[60, 60], [1, 200], [1]]
    assert [result_of(each).weight for each in pending] == [60, 60, 1, 200, 1]


def test_a_read_that_nobody_waits_for_is_not_made() -> None:
    clock = Clock()
    batcher, made = reads(clock)
    first, second = (batcher.submit(Read(owner, 1)) for owner in "ab")
    cancel(first)
    clock.advance(0)
    assert made[0][0] == [Read("b", 1)]
    made[0][1].callback(made[0][0])
    assert result_of(second) == Read("b", 1)
    cancel(batcher.submit(Read("a", 1)))
    idle = batcher.wait_idle()
    clock.advance(1)
    assert len(made) == 1
    assert fired(idle)
    assert not clock.getDelayedCalls()


def test_results_are_passed_on_in_several_turns_if_that_takes_long() -> None:
    clock = Clock()
    batcher, made = reads(clock)
    done: list[str] = []

    def use(read: Read) -> None:
        clock.rightNow += DELIVER_SECONDS / 2
        done.append(read.owner)

    for owner in "abcde":
        batcher.submit(Read(owner, 1)).addCallback(use)
    clock.advance(0)
    items, result = made[0]
    result.callback(items)
    late = batcher.submit(Read("z", 1))
    seen = [list(done)]
    while len(made) < 2:
        [call, *_] = clock.getDelayedCalls()
        clock.calls.remove(call)  # type: ignore[arg-type]
        call.func(*call.args)  # type: ignore[attr-defined]
        seen.append(list(done))
    assert [len(each) for each in seen][:3] == [2, 4, 5]
    made[1][1].callback(made[1][0])
    assert result_of(late) == Read("z", 1)
