"""Every connection in these tests checks the transitions between its states."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from chatd.http import server
from chatd.http.channel import Channel
from chatd.http.connection_states import NEW, TRANSITIONS

SEEN: set[tuple[int, int]] = set()
"""Transitions that connections have made so far."""


class CheckedChannel(Channel):
    """A channel whose state cannot make a transition that is not in the table."""

    _checked = NEW

    @property
    def _state(self) -> int:
        return self._checked

    @_state.setter
    def _state(self, state: int) -> None:
        if state != self._checked:
            transition = (self._checked, state)
            assert transition in TRANSITIONS, transition
            SEEN.add(transition)
            self._checked = state


@pytest.fixture(scope="module", autouse=True)
def _checked_transitions() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(server, "Channel", CheckedChannel)
        yield


@pytest.fixture
def transitions() -> set[tuple[int, int]]:
    """The transitions made by the connections of the test."""
    SEEN.clear()
    return SEEN
