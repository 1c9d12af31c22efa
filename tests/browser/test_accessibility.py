"""Keyboard, focus, labels and live regions."""

from selenium.webdriver.common.keys import Keys

from tests.browser.conftest import CreateAccount, OpenPage


def test_everything_can_be_done_with_the_keyboard(
    create_account: CreateAccount, open_page: OpenPage
) -> None:
    ann, bob, cat = (create_account(name) for name in ("ann", "bob", "cat"))
    page = open_page(ann)
    bob.send(ann, "I am bob")
    cat.send(ann, "I am cat")
    page.until(lambda: len(page.conversations) == 2, "no messages")

    def press(*keys: str) -> None:
        for key in keys:
            page.driver.switch_to.active_element.send_keys(key)

    def focused() -> str:
        return str(page.run("return document.activeElement.id || document.activeElement.innerText"))

    assert focused() == "search"
    press(Keys.ARROW_DOWN)
    assert "I am cat" in focused()
    press(Keys.ARROW_DOWN)
    assert "I am bob" in focused()
    press(Keys.ENTER)
    page.wait_for_messages(["I am bob"])
    assert focused() == "text"
    press("Hello", Keys.SHIFT + Keys.ENTER + Keys.NULL, "bob", Keys.ENTER)
    page.wait_for_messages(["I am bob", "Hello\nbob"])
    press(Keys.ESCAPE)
    page.until(lambda: "bob" in focused(), "the focus is lost")


def test_fields_have_labels_and_regions_are_live(open_page: OpenPage) -> None:
    page = open_page()
    unlabelled = page.run(
        "return [...document.querySelectorAll('input:not([hidden]), textarea')]"
        ".filter((field) => !field.labels.length).map((field) => field.id)"
    )
    assert unlabelled == []
    assert page.find("#scroller").get_attribute("aria-live") == "polite"
    assert page.find("#status").get_attribute("role") == "status"


def test_unread_messages_are_counted_until_they_are_seen(
    create_account: CreateAccount, open_page: OpenPage
) -> None:
    ann, bob = create_account("ann"), create_account("bob")
    page = open_page(ann)
    bob.send(ann, "one", "two")
    page.until(lambda: page.texts("#conversations .unread") == ["2"], "no unread messages")
    assert page.find("#conversations .unread").get_attribute("aria-label") == "2 unread"
    assert page.driver.title == "(2) chatd"
    page.open_conversation(bob)
    page.wait_for_messages(["one", "two"])
    page.until(lambda: page.driver.title == "chatd", "messages on the screen count as unread")
    page.driver.refresh()
    page.wait_online()
    assert page.driver.title == "chatd"
