"""The simulation finds nothing in the product, everything that is planted, and repeats itself."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import settings

from tests.conftest import LoggedFailures
from tests.examples import DEEP, examples
from tests.simulation.database import Kind
from tests.simulation.planted import planted
from tests.simulation.simulation import simulate
from tests.simulation.tape import Tape, shrink

SEEDS: dict[Kind, int] = {
    "sqlite": examples(1, deep=3),
    "postgres": examples(1, deep=2),
    "sharded": 1,
}
QUICKLY_FOUND: dict[Kind, tuple[str, ...]] = {
    "sqlite": (
        "waiters are woken before the commit",
        "keys are written after the commit",
        "keys of the same batch are not seen",
        "waiters stay registered",
        "results of a batch are mixed up",
        "a client repeats with a new key",
    ),
    "postgres": (
        "what others commit wakes nobody",
        "what others revoke ends no poll",
        "keys are not used",
    ),
    "sharded": (
        "keys are claimed after the message",
        "nothing looks where the shards are",
    ),
}
"""Bugs that one of the first seeds finds; `scripts/simulate --planted` has all."""
IS_DEEP = settings.get_current_profile_name() == DEEP
REPEATED: tuple[Kind, ...] = tuple(SEEDS) if IS_DEEP else ("sqlite",)
"""Where it is cheap to look whether a run repeats itself, and finds bugs; all with `--deep`."""


@pytest.fixture(autouse=True)
def _judges_itself(logged_failures: LoggedFailures) -> Iterator[None]:
    """What daemons log is judged by the simulation."""
    yield
    logged_failures.forget()


@pytest.mark.parametrize(
    ("kind", "seed"), [(kind, seed) for kind, count in SEEDS.items() for seed in range(count)]
)
def test_nothing_is_wrong(kind: Kind, seed: int) -> None:
    assert simulate(seed, kind=kind).problems == []


@pytest.mark.parametrize("kind", REPEATED)
def test_a_seed_gives_the_same_run_again(kind: Kind) -> None:
    seed = SEEDS[kind]
    first, second = simulate(seed, kind=kind), simulate(seed, kind=kind)
    assert first.trace == second.trace
    assert first.events == second.events
    assert first.network.digest == second.network.digest
    replayed = simulate(seed, first.tape.drawn, kind=kind)
    assert replayed.trace == first.trace


@pytest.mark.parametrize(
    ("kind", "name"), [(kind, name) for kind in REPEATED for name in QUICKLY_FOUND[kind]]
)
def test_a_planted_bug_is_found(kind: Kind, name: str) -> None:
    with planted(name):
        assert any(simulate(seed, kind=kind).problems for seed in range(10))


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
