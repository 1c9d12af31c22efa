"""The simulation finds nothing in the product, everything that is planted, and repeats itself."""

from __future__ import annotations

import pytest

from tests.simulation.planted import planted
from tests.simulation.simulation import simulate
from tests.simulation.tape import Tape, shrink

SEEDS = 6
QUICKLY_FOUND = (
    "waiters are woken before the commit",
    "a revocation ends no poll",
    "keys are written after the commit",
    "keys of the same batch are not seen",
    "waiters stay registered",
    "held polls stay counted",
    "results of a batch are mixed up",
    "a client repeats with a new key",
    "sent_at follows the wall clock",
)
"""Bugs that one of the first seeds finds; `python -m tests.simulation --planted` has all."""


@pytest.mark.parametrize("seed", range(SEEDS))
def test_nothing_is_wrong(seed: int) -> None:
    assert simulate(seed).problems == []


def test_a_seed_gives_the_same_run_again() -> None:
    first, second = simulate(SEEDS), simulate(SEEDS)
    assert first.trace == second.trace
    assert first.events == second.events
    assert first.network.digest == second.network.digest
    replayed = simulate(SEEDS, first.tape.drawn)
    assert replayed.trace == first.trace


@pytest.mark.parametrize("name", QUICKLY_FOUND)
def test_a_planted_bug_is_found(name: str) -> None:
    with planted(name):
        assert any(simulate(seed).problems for seed in range(10))


def test_a_tape_is_shrunk_to_what_matters() -> None:
    tape = Tape(1)
    drawn = [tape.below(10) for _ in range(200)]
    place = next(at for at, number in enumerate(drawn) if number == 7)

    def fails(candidate: object) -> bool:
        return isinstance(candidate, list) and 7 in candidate

    assert shrink(drawn[: place + 50], fails, 500) == [7]


def test_a_tape_is_replayed_and_then_ordinary() -> None:
    tape = Tape(0, [3, 9])
    assert [tape.below(5), tape.below(5), tape.below(5)] == [3, 4, 0]
    assert not tape.one_in(2)
