"""What clients record of sends that fail."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from pytest_twisted import ensureDeferred

from chatd.client import APIError, Message, Unreachable
from chatd.client import Sent as SentMessage
from tests.history import Outcome, Sent
from tests.recorded_clients import Account, Recorder

AT = datetime(2026, 11, 27, tzinfo=UTC)


class ScriptedClient:
    """Answers a send with what it is given."""

    def __init__(self, answer: SentMessage | Exception) -> None:
        self._answer = answer

    async def send(self, _: int, __: str) -> SentMessage:
        if isinstance(self._answer, Exception):
            raise self._answer
        return self._answer


async def recorded(answer: SentMessage | Exception) -> Sent:
    recorder = Recorder()
    client: Any = ScriptedClient(answer)
    await Account(client, 1, recorder).send(2, "hai")
    [event] = recorder.events
    assert isinstance(event, Sent)
    assert (event.sent_by, event.received_by, event.text) == (1, 2, "hai")
    assert event.began <= event.ended
    return event


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (APIError(403, "blocked", "no"), "refused"),
        # An earlier attempt may have been stored.
        (APIError(429, "rate_limited", "later"), "unknown"),
        (APIError(503, "store_unavailable", "later"), "unknown"),
        (Unreachable("gone"), "unknown"),
    ],
)
@ensureDeferred
async def test_a_failed_send_is_refused_or_unknown(error: Exception, outcome: Outcome) -> None:
    event = await recorded(error)
    assert (event.outcome, event.seq) == (outcome, 0)


@ensureDeferred
async def test_an_acknowledged_send_has_its_place_and_time() -> None:
    event = await recorded(SentMessage(Message(3, 1, "hai", AT, 2), False))
    assert (event.outcome, event.seq, event.sent_at) == ("acknowledged", 3, AT.isoformat())


@ensureDeferred
async def test_other_failures_are_recorded_and_raised() -> None:
    recorder = Recorder()
    client: Any = ScriptedClient(ZeroDivisionError())
    with pytest.raises(ZeroDivisionError):
        await Account(client, 1, recorder).send(2, "hai")
    assert [event.outcome for event in recorder.events if isinstance(event, Sent)] == ["unknown"]
