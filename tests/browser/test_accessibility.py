"""Keyboard, focus, live regions, and all that axe-core knows to look for."""

from selenium.webdriver.common.keys import Keys

from tests.browser.axe import axe_violations
from tests.browser.conftest import PHONE, CreateAccount, OpenPage


def test_everything_can_be_done_with_the_keyboard(
    create_account: CreateAccount, open_page: OpenPage
) -> None:
    ann, bob, cat = (create_account(name) for name in ("ann", "bob", "cat"))
    page = open_page(ann)
    bob.send(ann, "I am bob")
    cat.send(ann, "I am cat")
    page.until(lambda: len(page.conversations) == 2, "no messages")

    def focused() -> str:
        return str(page.run("return document.activeElement.id || document.activeElement.innerText"))

    assert focused() == "search"
    page.press(Keys.ARROW_DOWN)
    assert "I am cat" in focused()
    page.press(Keys.ARROW_DOWN)
    assert "I am bob" in focused()
    page.press(Keys.ENTER)
    page.wait_for_messages(["I am bob"])
    assert focused() == "text"
    page.press("Hello", Keys.SHIFT + Keys.ENTER + Keys.NULL, "bob", Keys.ENTER)
    page.wait_for_messages(["I am bob", "Hello\nbob"])
    page.press(Keys.ESCAPE)
    page.until(lambda: "bob" in focused(), "the focus is lost")

    # The search finds conversations, and people by the beginning of their names.
    dora = create_account("Dora")
    page.type("#search", "AT")
    page.until(lambda: page.conversations == [cat.name], "no search")
    assert page.texts("#find-person") == ["Write to “AT”"]
    page.type("#search", "dor")
    page.wait_for_text("#found-people .name", dora.name)
    page.press(Keys.ARROW_DOWN, Keys.ENTER)
    page.wait_for_text("#peer-name", dora.name)
    page.press("hello", Keys.ENTER)
    page.wait_for_messages(["hello"])
    assert page.conversations == [dora.name, bob.name, cat.name]


def test_axe_finds_nothing_in_any_view(create_account: CreateAccount, open_page: OpenPage) -> None:
    ann, bob = create_account("ann"), create_account("bob")
    page = open_page()
    assert axe_violations(page) == []
    page.find("#choose-register").click()
    page.press(Keys.ENTER)
    assert axe_violations(page) == []
    page.load(ann)
    assert axe_violations(page) == []

    bob.send(ann, *[f"line\nof {number}, see https://example.org/{number}" for number in range(15)])
    page.until(lambda: page.unread == ["15"], "no messages")
    page.open_conversation(bob)
    assert page.find("#scroller").get_attribute("aria-live") == "polite"
    assert page.find("#status").get_attribute("role") == "status"
    page.until(lambda: page.find("#newest").is_displayed(), "not at the first new message")
    assert axe_violations(page) == []
    page.emulate(*PHONE, dark=True)
    page.send("an answer")
    page.until(lambda: len(page.marks) == 1, "not sent")
    page.find("#messages .actions").send_keys(Keys.ENTER)
    assert axe_violations(page) == []
    page.press(Keys.ENTER, " that is edited")
    page.set_offline(True)
    page.wait_offline()
    assert axe_violations(page) == []
    page.press(Keys.ESCAPE)
    page.set_offline(False)
    page.wait_online()
    page.press(Keys.ARROW_UP, Keys.CONTROL + "a", Keys.BACK_SPACE, Keys.ENTER)
    page.until(lambda: page.find("#confirmation").is_displayed(), "not asked")
    assert axe_violations(page) == []
    page.press(Keys.ESCAPE)
    page.close_conversation()
    page.type("#search", "b")
    assert axe_violations(page) == []
    page.open_settings()
    assert axe_violations(page) == []
    page.emulate(1100, 800)
    assert axe_violations(page) == []
