"""A conversation shows each message once and in order, however its messages arrived."""

from tests.browser.accounts import numbered
from tests.browser.conftest import CreateAccount, OpenPage
from tests.examples import examples


def test_a_conversation_that_is_clicked_again_keeps_its_order(
    create_account: CreateAccount, open_page: OpenPage
) -> None:
    ann, bob = create_account("ann"), create_account("bob")
    ann.send(bob, *numbered(range(60)))
    page = open_page(ann)
    page.open_conversation(bob)
    page.wait_for_messages(numbered(range(10, 60)))
    bob.send(ann, *numbered([60]))
    page.wait_for_messages(numbered(range(10, 61)))
    page.open_conversation(bob)
    page.load_older()
    page.wait_for_messages(numbered(range(61)))
    page.open_conversation(bob)
    page.send("message 61")
    page.wait_for_messages(numbered(range(62)))


def test_a_reconnection_keeps_the_order(create_account: CreateAccount, open_page: OpenPage) -> None:
    ann, bob = create_account("ann"), create_account("bob")
    ann.send(bob, *numbered(range(120)))
    page = open_page(ann)
    page.open_conversation(bob)
    page.wait_for_messages(numbered(range(70, 120)))
    page.load_older()
    page.wait_for_messages(numbered(range(20, 120)))
    bob.send(ann, *numbered([120]))
    page.wait_for_messages(numbered(range(20, 121)))

    page.set_offline(True)
    page.wait_offline()
    bob.send(ann, *numbered([121]))
    ann.send(bob, *numbered([122]))
    bob.send(ann, *numbered([123]))
    page.set_offline(False)
    page.wait_for_messages(numbered(range(20, 124)))
    page.load_older()
    page.wait_for_messages(numbered(range(124)))


def test_a_gap_is_not_hidden(create_account: CreateAccount, open_page: OpenPage) -> None:
    """More came from the account's other device, while this one was away, than a page holds."""
    ann, bob = create_account("ann"), create_account("bob")
    bob.send(ann, *numbered(range(10)))
    page = open_page(ann)
    page.open_conversation(bob)
    page.wait_for_messages(numbered(range(10)))
    page.set_offline(True)
    page.wait_offline()
    ann.send(bob, *numbered(range(10, 80)))
    bob.send(ann, *numbered([80]))
    page.set_offline(False)
    page.wait_for_messages(numbered(range(31, 81)))
    page.load_older()
    page.wait_for_messages(numbered(range(81)))


def test_two_pages_of_one_conversation_agree(
    create_account: CreateAccount, open_page: OpenPage
) -> None:
    """Messages of both sides within a second, in the order in which they were sent."""
    ann, bob = create_account("ann"), create_account("bob")
    bob.send(ann, "first")
    page = open_page(ann)
    page.open_conversation(bob)
    page.wait_for_messages(["first"])
    other = open_page(bob)
    other.start_conversation(ann.name)
    expected = ["first"]
    for number in range(examples(2, deep=3)):
        for name, sender, receiver in (("ann", page, other), ("bob", other, page)):
            expected.append(f"{number} from {name}")
            sender.send(expected[-1])
            receiver.wait_for_messages(expected)
    for each, peer in ((page, bob), (other, ann)):
        each.open_conversation(peer)
        each.wait_for_messages(expected)
        each.driver.refresh()
        each.wait_for_messages(expected)
    assert ann.conversation(bob) == expected
