"""Nothing is lost, doubled, misrouted or out of order without being counted."""

from bench.delivery_check import Received, Tally


def test_each_message_arrives_once() -> None:
    tally = Tally(2)
    first, text = tally.send(1, 10.0)
    tally.acknowledge(first)
    assert (tally.acknowledged, tally.lost) == (1, 1)
    tally.receive(1, Received(text, 5), 10.5)
    assert (tally.lost, tally.arrived, tally.delays) == (0, 1, [(10.0, 0.5)])
    assert len(text) == 40


def test_a_message_that_was_not_acknowledged_may_be_missing() -> None:
    tally = Tally(1)
    tally.send(0, 0.0)
    assert (len(tally), tally.lost) == (1, 0)


def test_a_second_copy_counts_as_doubled() -> None:
    tally = Tally(1)
    _, text = tally.send(0, 0.0)
    tally.receive(0, Received(text, None), 1.0)
    tally.receive(0, Received(text, None), 1.0)
    assert (tally.doubled, tally.arrived) == (1, 1)


def test_a_message_to_somebody_else_counts_as_misrouted() -> None:
    tally = Tally(2)
    _, text = tally.send(0, 0.0)
    tally.receive(1, Received(text, None), 1.0)
    assert (tally.misrouted, tally.arrived) == (1, 0)


def test_a_gap_in_the_numbering_of_an_inbox_counts() -> None:
    tally = Tally(2)
    for seq in (7, 8, 10):
        tally.receive(0, Received("of another run", seq), 0.0)
    tally.receive(1, Received("of another run", 3), 0.0)
    assert tally.gaps == 1


def test_messages_of_another_run_are_ignored() -> None:
    tally = Tally(1)
    _, text = Tally(1).send(0, 0.0)
    tally.receive(0, Received(text, None), 0.0)
    assert tally.arrived == 0
