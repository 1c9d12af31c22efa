"""The wire of NOTIFY."""

from __future__ import annotations

import pytest

from chatd.model import MAX_INTEGER
from chatd.postgres.notices import (
    RECIPIENTS,
    Notice,
    Origin,
    Ping,
    Revoked,
    Woken,
    decode,
    encode,
)

PAYLOAD_LIMIT = 8000


@pytest.mark.parametrize(
    "notice",
    [
        Woken((1,)),
        Woken((1, 2, MAX_INTEGER)),
        Revoked(7, None),
        Revoked(MAX_INTEGER, bytes(range(32))),
        Ping(3),
    ],
)
def test_what_is_told_is_understood(notice: Notice) -> None:
    origin = Origin().name
    assert decode(encode(origin, notice)) == (origin, notice)


def test_the_largest_payload_is_below_the_limit() -> None:
    assert len(encode(Origin().name, Woken((MAX_INTEGER,) * RECIPIENTS))) < PAYLOAD_LIMIT


@pytest.mark.parametrize(
    "payload", ["", "x", "a:b", "a:z:1", "a:m:", "a:m:x", "a:r:1", "a:r:1:xyz", "a:p:"]
)
def test_what_nobody_tells_is_an_error(payload: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        decode(payload)


def test_processes_have_names_of_their_own() -> None:
    assert len({Origin().name for _ in range(100)}) == 100


def test_a_process_may_take_another_name() -> None:
    origin = Origin()
    names = {origin.name}
    for _ in range(10):
        origin.renew()
        names.add(origin.name)
    assert len(names) == 11
