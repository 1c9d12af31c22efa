"""Lost, duplicated, misrouted and out-of-order messages are counted."""

from bench.delivery_check import DeliveryCheck, Received


def test_a_message_that_arrives_is_not_lost() -> None:
    check = DeliveryCheck(2)
    first, text = check.send(1, 10.0)
    check.acknowledge(first)
    assert (check.acknowledged, check.lost) == (1, 1)
    check.receive(1, Received(text, 5), 10.5)
    assert (check.lost, check.arrived, check.latencies) == (0, 1, [(10.0, 0.5)])
    assert len(text) == 40


def test_an_unacknowledged_message_is_not_lost() -> None:
    check = DeliveryCheck(1)
    check.send(0, 0.0)
    assert (len(check), check.lost) == (1, 0)


def test_a_second_copy_is_duplicated() -> None:
    check = DeliveryCheck(1)
    _, text = check.send(0, 0.0)
    check.receive(0, Received(text, None), 1.0)
    check.receive(0, Received(text, None), 1.0)
    assert (check.duplicated, check.arrived) == (1, 1)


def test_a_message_to_another_user_is_misrouted() -> None:
    check = DeliveryCheck(2)
    _, text = check.send(0, 0.0)
    check.receive(1, Received(text, None), 1.0)
    assert (check.misrouted, check.arrived) == (1, 0)


def test_a_gap_in_the_seqs_of_an_inbox_is_counted() -> None:
    check = DeliveryCheck(2)
    for seq in (7, 8, 10):
        check.receive(0, Received("of another run", seq), 0.0)
    check.receive(1, Received("of another run", 3), 0.0)
    assert check.gaps == 1


def test_messages_of_another_run_are_ignored() -> None:
    check = DeliveryCheck(1)
    _, text = DeliveryCheck(1).send(0, 0.0)
    check.receive(0, Received(text, None), 0.0)
    assert check.arrived == 0


def test_figures_name_everything_that_went_wrong() -> None:
    check = DeliveryCheck(2)
    first, _ = check.send(1, 0.0)
    check.acknowledge(first)
    _, text = check.send(1, 0.0)
    check.receive(1, Received(text, 1), 1.0)
    assert check.figures() == {
        "acknowledged": 1,
        "unacknowledged": 1,
        "arrived": 1,
        "lost": 1,
        "duplicated": 0,
        "misrouted": 0,
        "gaps": 0,
    }
