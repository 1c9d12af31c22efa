"""What the heartbeats of other processes tell."""

from __future__ import annotations

from chatd.bus.nats_payloads import Heartbeat, Revocation
from chatd.bus.peers import MAX_PEERS, SILENT_SECONDS, Peers


def beat(number: int, revocations: int = 0, generation: int = 1, node: str = "a") -> Heartbeat:
    return Heartbeat(node, generation, number, revocations)


def revocation(number: int, generation: int = 1) -> Revocation:
    return Revocation("a", generation, number, 1, None, True)


def test_heartbeats_in_order_mean_that_nothing_is_missing() -> None:
    peers = Peers()
    assert not any(peers.on_heartbeat(beat(number), number) for number in (7, 8, 9))
    assert len(peers) == 1


def test_a_missing_heartbeat_is_noticed_once() -> None:
    peers = Peers()
    found = [peers.on_heartbeat(beat(number), 0) for number in (1, 2, 4, 5, 3, 4)]
    assert found == [False, False, True, False, True, False]


def test_a_process_that_has_connected_again_may_have_published_in_vain() -> None:
    peers = Peers()
    assert not peers.on_heartbeat(beat(1), 0)
    assert peers.on_heartbeat(beat(1, generation=2), 0)
    assert not peers.on_heartbeat(beat(2, generation=2), 0)
    # Also if nothing was known of it, unless it has been connected for longer.
    peers.clear()
    assert peers.on_heartbeat(beat(1, generation=3), 0)
    peers.clear()
    assert not peers.on_heartbeat(beat(5, generation=3), 0)
    assert not Peers().on_heartbeat(beat(1), 0)


def test_missing_revocations_are_noticed() -> None:
    peers = Peers()
    # What is not known yet cannot be missing.
    assert not peers.on_revocation(revocation(1))
    assert not peers.on_heartbeat(beat(1, 1), 0)
    assert not peers.on_revocation(revocation(2))
    assert not peers.on_heartbeat(beat(2, 2), 0)
    assert peers.on_revocation(revocation(4))
    assert not peers.on_heartbeat(beat(3, 4), 0)
    # The last one is missing.
    assert peers.on_heartbeat(beat(4, 5), 0)
    assert not peers.on_heartbeat(beat(5, 5), 0)
    assert not peers.on_revocation(revocation(1, generation=2))


def test_silent_processes_are_noticed_once() -> None:
    peers = Peers()
    peers.on_heartbeat(beat(1), 0)
    peers.on_heartbeat(beat(1, node="b"), 1)
    assert not peers.forget_silent(SILENT_SECONDS)
    assert peers.forget_silent(SILENT_SECONDS + 0.1)
    assert not peers.forget_silent(SILENT_SECONDS + 0.1)
    peers.excuse(10)
    assert not peers.forget_silent(10 + SILENT_SECONDS)
    peers.on_goodbye("b")
    peers.on_goodbye("unknown")
    assert len(peers) == 0
    assert not peers.forget_silent(100)


def test_there_is_a_limit() -> None:
    peers = Peers()
    for number in range(MAX_PEERS + 5):
        peers.on_heartbeat(beat(1, node=str(number)), 0)
    assert len(peers) == MAX_PEERS
