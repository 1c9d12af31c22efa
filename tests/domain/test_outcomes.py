"""Telling others what calls of the store have done."""

from __future__ import annotations

import pytest
from twisted.internet.defer import CancelledError, Deferred

from chatd.domain.outcomes import announced
from chatd.errors import MessageNotFound, Overloaded, StoreUnavailable


@pytest.mark.parametrize(
    ("outcome", "told"),
    [
        (1, True),
        (0, False),
        (StoreUnavailable("the disk", 1), True),
        (OSError(), True),
        (CancelledError(), True),
        (Overloaded("too many", 1), False),
        (MessageNotFound("there is none"), False),
    ],
)
def test_what_was_done_or_may_have_been_is_announced(outcome: int | Exception, told: bool) -> None:
    order: list[str] = []
    call: Deferred[int] = Deferred()
    after = announced(call, lambda: order.append("told"), bool)
    after.addBoth(lambda result: order.append(str(getattr(result, "value", result))))
    if isinstance(outcome, Exception):
        call.errback(outcome)
    else:
        call.callback(outcome)
    assert order == [*(["told"] if told else []), str(outcome)]
