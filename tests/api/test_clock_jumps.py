"""The wall clock is set while requests wait: nothing depends on it but times that people read."""

from __future__ import annotations

from pathlib import Path

import pytest

from chatd.domain.rate_limits import Rates
from tests.api.service import CHATS, OWN, Service, serving

JUMPS = pytest.mark.parametrize("seconds", [-60, -7200, 86400])


def jump(service: Service, seconds: int) -> None:
    """Set the wall clock."""
    service.system.now.offset += seconds * 1_000_000


@JUMPS
def test_held_polls_last_as_long_as_was_asked(service: Service, seconds: int) -> None:
    ann = service.new_user()
    held = ann.wait("?since=now&wait=20")
    service.advance(1)
    jump(service, seconds)
    service.advance(18.5)
    assert held.held
    service.advance(0.5)
    meta = held.response.json["meta"]
    assert (meta["timed_out"], meta["waited"]) == (True, 20_000)


@JUMPS
def test_rate_limits_say_how_long_to_wait(tmp_path: Path, seconds: int) -> None:
    with serving(tmp_path, OWN, rates=Rates()) as service:
        ann = service.new_user()
        while True:
            response = ann.post(CHATS, {"user_id": ann.id, "message": "x"})
            if response.status != 201:
                break
        before = int(response.header("Retry-After") or 0)
        jump(service, seconds)
        response = ann.post(CHATS, {"user_id": ann.id, "message": "x"})
        response.problem(429, "rate_limited")
        assert int(response.header("Retry-After") or 0) == before


@JUMPS
def test_times_in_an_inbox_never_go_back(service: Service, seconds: int) -> None:
    ann = service.new_user()
    held = ann.wait("?since=now&wait=20")
    sent = [ann.send(ann)]
    jump(service, seconds)
    sent += [ann.send(ann), ann.send(ann)]
    assert held.response.json["messages"] == sent[:1]
    times = [message["sent_at"] for message in sent]
    assert times == sorted(times)
    assert (times[0] == times[2]) is (seconds < 0)
    since = held.response.json["meta"]["cursor"]
    assert ann.poll(f"?since={since}")["messages"] == sent[1:]
