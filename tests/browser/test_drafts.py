"""A draft to one user is never sent to another."""

from selenium.webdriver.common.keys import Keys

from tests.browser.conftest import CreateAccount, OpenPage


def test_a_draft_belongs_to_one_conversation(
    create_account: CreateAccount, open_page: OpenPage
) -> None:
    ann, bob, cat = (create_account(name) for name in ("ann", "bob", "cat"))
    bob.send(ann, "I am bob")
    cat.send(ann, "I am cat")
    page = open_page(ann)
    page.open_conversation(bob)
    page.type("#text", "for bob only")
    page.open_conversation(cat)
    assert page.draft == ""
    page.type("#text", "for cat only")
    page.open_conversation(bob)
    assert page.draft == "for bob only"
    page.find("#text").send_keys(Keys.ESCAPE)
    page.open_conversation(cat)
    assert page.draft == "for cat only"

    page.driver.refresh()
    page.until(lambda: page.draft == "for cat only", "the draft is lost")
    page.wait_for_messages(["I am cat"])
    page.find("#text").send_keys(Keys.ENTER)
    page.wait_for_messages(["I am cat", "for cat only"])
    assert page.draft == ""
    page.open_conversation(bob)
    page.wait_for_messages(["I am bob"])
    assert page.draft == "for bob only"
    page.open_conversation(cat)
    assert page.draft == ""

    page.log_out()
    page.until(lambda: page.find("#login").is_displayed(), "still logged in")
    assert page.draft == ""
    assert "for bob only" not in page.run("return JSON.stringify(localStorage)")
