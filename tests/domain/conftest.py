"""Fixtures of the domain's tests: composed systems on a clock that the test advances."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.doubles import SteppedExecutor, System, composed


@pytest.fixture
def system(tmp_path: Path) -> Iterator[System]:
    """A system whose threads run inline."""
    with composed(tmp_path) as system:
        yield system
        assert system.is_idle()


@pytest.fixture
def stepped(tmp_path: Path) -> Iterator[System]:
    """A system whose threads the test steps, and that has no inbox cache."""
    with composed(tmp_path, worker=SteppedExecutor, read_cached=False) as system:
        yield system
        system.settle()
        assert system.is_idle()
