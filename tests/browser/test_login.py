"""Accounts, log-in and log-out, and what the browser stores of them."""

from itertools import count

from selenium.webdriver.common.keys import Keys

from tests.browser.conftest import CreateAccount, OpenPage
from tests.daemon import PASSWORD, TOKENS, USERS, Daemon, bearer

_numbers = count(1)

WRONG = "Username or password are not right."
USERNAMES = "Usernames have up to 32 letters, digits, dots, dashes and underscores."


def test_registration_reload_and_log_out(daemon: Daemon, open_page: OpenPage) -> None:
    name = f"Ann.{next(_numbers)}"
    page = open_page()
    page.register(name)
    token = page.run("return JSON.parse(localStorage.getItem('chatd.session')).token")
    assert daemon.request("GET", USERS, None, bearer(token)).status == 200
    page.driver.refresh()
    page.wait_online()
    assert page.texts("#my-name") == [name]

    page.log_out()
    page.until(lambda: page.find("#login").is_displayed(), "still logged in")
    assert daemon.request("GET", USERS, None, bearer(token)).status == 401
    assert page.run("return Object.keys(localStorage)") == []
    page.driver.refresh()
    page.until(lambda: page.find("#username").is_displayed(), "no login form")
    page.log_in(name.upper())
    assert page.texts("#my-name") == [name]


def test_a_token_revoked_elsewhere_ends_the_session(
    daemon: Daemon, create_account: CreateAccount, open_page: OpenPage
) -> None:
    ann = create_account("ann")
    page = open_page(ann)
    assert daemon.request("DELETE", TOKENS, None, bearer(ann.token)).status == 204
    page.until(lambda: page.find("#login").is_displayed(), "still logged in")
    assert page.find("#login-error").text == "You were logged out."


def test_refused_credentials_are_explained(
    create_account: CreateAccount, open_page: OpenPage
) -> None:
    ann = create_account("ann")
    page = open_page()
    page.type("#username", ann.name)
    page.type("#password", "wrong!" + Keys.ENTER)
    page.wait_for_text("#login-error", WRONG)
    page.find("#choose-register").click()
    for field, text, error in [
        ("#email", "ann", "This is not an email address."),
        ("#email", "ann@example.org", "The password needs at least 5 characters."),
        ("#password", PASSWORD, "The passwords differ: enter the same one twice."),
        ("#repeat", PASSWORD, "This username is taken. Choose another one."),
        ("#username", "ann smith", USERNAMES),
    ]:
        if field == "#email":
            page.type("#password", "")
        page.type(field, text + Keys.ENTER)
        page.wait_for_text("#login-error", error)


def test_log_out_asks_before_it_discards_messages(
    create_account: CreateAccount, open_page: OpenPage
) -> None:
    ann, bob = create_account("ann"), create_account("bob")
    page = open_page(ann)
    page.start_conversation(bob.name)
    page.set_offline(True)
    page.send("unsent")
    page.until(lambda: page.pending == ["unsent"], "not queued")
    page.log_out()
    page.until(lambda: page.find("#confirmation").is_displayed(), "not asked")
    assert page.find("#confirmation-text").text == "1 unsent message is discarded."
    page.driver.switch_to.active_element.send_keys(Keys.ENTER)
    page.until(lambda: not page.find("#confirmation").is_displayed(), "not cancelled")
    assert page.pending == ["unsent"]
    page.find("#settings").send_keys(Keys.ESCAPE)
    page.set_offline(False)
    page.wait_for_messages(["unsent"])
