"""The account's settings, and people who are blocked."""

from __future__ import annotations

from selenium.webdriver.common.keys import Keys

from tests.browser.accounts import Account
from tests.browser.conftest import CreateAccount, OpenPage
from tests.browser.pages import Page
from tests.daemon import PASSWORD, TOKENS, USERS, Daemon, bearer

NEW_PASSWORD = "another secret"


def change_password(page: Page, current: str, new: str, repeated: str) -> None:
    for field, text in [("#current-password", current), ("#new-password", new)]:
        page.type(field, text)
    page.type("#new-repeat", repeated + Keys.ENTER)


def is_valid(account: Account, token: str) -> bool:
    return account.daemon.request("GET", USERS, None, bearer(token)).status == 200


def test_email_password_and_sessions(
    daemon: Daemon, create_account: CreateAccount, open_page: OpenPage
) -> None:
    ann = create_account("ann")
    tokens = [daemon.token(ann.name) for _ in range(3)]
    page = open_page()
    page.log_in(ann.name)
    page.open_settings()
    # Those of the test have no label.
    names = page.texts("#sessions .name")
    assert names[1:] == ["Unnamed session"] * 4
    assert names[0].endswith("on Linux")
    assert page.texts("#sessions .note")[0] == "This session"
    page.run("document.querySelectorAll('#sessions button')[0].click()")
    page.until(lambda: len(page.texts("#sessions li")) == 4, "not ended")
    assert [is_valid(ann, token) for token in tokens] == [True, True, False]
    page.run("document.getElementById('end-others').click()")
    page.until(lambda: len(page.texts("#sessions li")) == 1, "not ended")
    assert not any(is_valid(ann, token) for token in tokens)

    page.until(lambda: page.find("#new-email").get_property("value"), "no address")
    page.type("#new-email", "new@example.org")
    page.type("#email-password", "wrong" + Keys.ENTER)
    page.wait_for_text("#email-result", "The current password is not right.")
    page.type("#email-password", PASSWORD + Keys.ENTER)
    page.wait_for_text("#email-result", "Your email address was changed.")

    other = daemon.token(ann.name)
    change_password(page, PASSWORD, NEW_PASSWORD, "another")
    differ = "The passwords differ: enter the same one twice."
    page.wait_for_text("#password-result", differ)
    change_password(page, "wrong", NEW_PASSWORD, NEW_PASSWORD)
    page.wait_for_text("#password-result", "The current password is not right.")
    assert is_valid(ann, other)
    change_password(page, PASSWORD, NEW_PASSWORD, NEW_PASSWORD)
    changed = "Your password was changed, and all other sessions were logged out."
    page.wait_for_text("#password-result", changed)
    assert not is_valid(ann, other)
    body = {"username": ann.name, "password": NEW_PASSWORD}
    assert daemon.request("POST", TOKENS, body).status == 201
    page.assert_no_errors()


def test_a_blocked_person_cannot_write(create_account: CreateAccount, open_page: OpenPage) -> None:
    ann, bob = create_account("ann"), create_account("bob")
    bob.send(ann, "hello")
    page, other = open_page(ann), open_page(bob)
    page.open_conversation(bob)
    page.find("#peer-menu").send_keys(Keys.ENTER)
    page.press(Keys.ENTER)
    page.until(lambda: page.find("#confirmation").is_displayed(), "not asked")
    page.press(Keys.TAB, Keys.ENTER)
    page.until(lambda: page.find("#blocked-notice").is_displayed(), "not blocked")

    other.open_conversation(ann)
    other.send("are you there?")
    refused = "Not sent: This person does not accept messages from you. Try againEditDiscard"
    other.until(lambda: other.texts("#messages .failed .details") == [refused], "not refused")
    page.open_settings()
    page.until(lambda: page.texts("#blocked .entry") == [bob.name], "not listed")
    page.find("#blocked button").click()
    page.until(lambda: not page.texts("#blocked li"), "still listed")
    page.close_settings()
    assert not page.find("#blocked-notice").is_displayed()
    other.find("#messages .failed button").click()
    page.wait_for_messages(["hello", "are you there?"])
