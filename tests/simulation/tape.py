"""The choices of a run: drawn from a seed, or read from the tape of an earlier run."""

from __future__ import annotations

import base64
import random
import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import TypeVar
from unittest.mock import patch

T = TypeVar("T")


class Tape:
    """Every choice of a run is drawn here, so that the same tape gives the same run.

    `given` replays recorded choices; after their end every choice is 0, which is always the most
    ordinary one.
    """

    def __init__(self, seed: int, given: Sequence[int] | None = None) -> None:
        self._random = random.Random(seed)
        self._given = given
        self.drawn: list[int] = []

    def below(self, bound: int) -> int:
        """A number from 0 to `bound` - 1."""
        if self._given is None:
            number = self._random.randrange(bound)
        elif len(self.drawn) < len(self._given):
            number = min(self._given[len(self.drawn)], bound - 1)
        else:
            number = 0
        self.drawn.append(number)
        return number

    def choice(self, options: Sequence[T]) -> T:
        """One of the options."""
        return options[self.below(len(options))]

    def one_in(self, count: int) -> bool:
        """True once in `count` times."""
        return self.below(count) == count - 1


@contextmanager
def repeatable(seed: int) -> Iterator[None]:
    """What the daemon draws itself, such as tokens, follows from the seed, too."""
    source = random.Random(f"secrets {seed}")

    def token_urlsafe(count: int) -> str:
        return base64.urlsafe_b64encode(source.randbytes(count)).rstrip(b"=").decode()

    state = random.getstate()
    random.seed(seed)
    with ExitStack() as stack:
        for name, function in {
            "randbelow": source.randrange,
            "randbits": source.getrandbits,
            "token_bytes": source.randbytes,
            "token_hex": lambda count: source.randbytes(count).hex(),
            "token_urlsafe": token_urlsafe,
        }.items():
            stack.enter_context(patch.object(secrets, name, function))
        try:
            yield
        finally:
            random.setstate(state)


def shrink(tape: Sequence[int], fails: Callable[[Sequence[int]], bool], runs: int) -> list[int]:
    """A shorter tape with which the run still fails, after at most so many runs.

    Parts are removed and numbers replaced by 0, in ever smaller steps.
    """
    best = list(tape)
    size = len(best) // 2
    while size and runs > 0:
        start = 0
        while start < len(best) and runs > 0:
            part = best[start : start + size]
            for replacement in ([], [0] * len(part)):
                if replacement == part:
                    continue
                candidate = best[:start] + replacement + best[start + size :]
                runs -= 1
                if fails(candidate):
                    best = candidate
                    break
            else:
                start += size
        size //= 2
    while best and best[-1] == 0:
        best.pop()
    return best
