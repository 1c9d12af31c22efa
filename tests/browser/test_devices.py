"""Two devices of one person and one of another show the same."""

from selenium.webdriver.common.keys import Keys

from tests.browser.accounts import numbered
from tests.browser.conftest import PHONE, CreateAccount, OpenPage

PREVIEWS = "#conversations .last"
DELETED = "This message was deleted."

SET_HIDDEN = """
Object.defineProperty(document, "hidden", { value: arguments[0], configurable: true });
document.dispatchEvent(new Event("visibilitychange"));
"""

STUB_NOTIFICATIONS = """
window.notifications = [];
window.Notification = class {
  static permission = "default";
  static async requestPermission() { this.permission = "granted"; }
  constructor(title, { body }) { window.notifications.push([title, body]); }
  close() { window.notifications.pop(); }
};
"""

HOLD_RESPONSES_TO_SENDS = """
const { fetch } = window;
const released = new Promise((resolve) => (window.release = resolve));
window.fetch = async (...parameters) => {
  const response = await fetch(...parameters);
  if (parameters[1]?.method === "POST") await released;
  return response;
};
"""


def test_what_one_device_does_is_seen_on_all(
    create_account: CreateAccount, open_page: OpenPage
) -> None:
    ann, bob = create_account("ann"), create_account("bob")
    desktop, phone, other = open_page(ann), open_page(ann, size=PHONE), open_page(bob)
    desktop.start_conversation(bob.name)
    other.start_conversation(ann.name)

    # Bob has it on the screen, so it is read; he is known to the phone without an answer.
    desktop.send("one")
    for page in (desktop, other):
        page.wait_for_messages(["one"])
    desktop.wait_for_marks("read")
    phone.wait_for_text(PREVIEWS, "You: one")
    phone.open_conversation(bob)
    phone.wait_for_messages(["one"])
    assert phone.marks == ["read"]

    # Bob's page has it, but he does not look.
    other.close_conversation()
    phone.send("two")
    for page in (desktop, phone):
        page.wait_for_messages(["one", "two"])
        page.wait_for_marks("read", "delivered")
    assert (other.unread, other.driver.title) == (["1"], "(1) chatd")
    assert "unread" in str(other.find("#icon").get_attribute("href"))

    # Up edits the last message; a menu deletes the first one, and asks.
    phone.press(Keys.ARROW_UP)
    assert phone.draft == "two"
    phone.press(" and a half", Keys.ENTER)
    for page in (desktop, phone):
        page.wait_for_messages(["one", "two and a half"])
        assert page.texts("#messages .edited .bubble") == ["two and a half"]
    other.wait_for_text(PREVIEWS, "two and a half")
    phone.set_offline(True)
    phone.wait_offline()
    desktop.run("document.querySelector('#messages .actions').focus()")
    desktop.press(Keys.ENTER, Keys.ARROW_DOWN, Keys.ENTER)
    desktop.until(lambda: desktop.find("#confirmation").is_displayed(), "not asked")
    desktop.press(Keys.TAB, Keys.ENTER)
    desktop.wait_for_messages([DELETED, "two and a half"])
    phone.set_offline(False)
    for page in (desktop, phone):
        page.wait_for_messages([DELETED, "two and a half"])
    other.open_conversation(ann)
    other.wait_for_messages([DELETED, "two and a half"])
    phone.wait_for_marks(None, "read")
    assert other.driver.title == "chatd"

    # What one device has read is read on the other.
    desktop.press(Keys.ESCAPE)
    phone.close_conversation()
    texts = ["three", *numbered(range(4, 10))]
    bob.send(ann, *texts)
    for page in (desktop, phone):
        page.wait_for_unread("7")
        assert page.find("#conversations .unread").get_attribute("aria-label") == "7 unread"
    phone.open_conversation(bob)
    for page in (phone, other):
        page.wait_for_messages([DELETED, "two and a half", *texts])
    assert phone.texts("#messages .new + .message .bubble") == ["three"]
    desktop.wait_for_unread()
    other.wait_for_marks(*["read"] * 7)

    # Another device, or the same one after a log-out, has all of it.
    desktop.log_out()
    desktop.until(lambda: desktop.find("#login").is_displayed(), "still logged in")
    desktop.log_in(ann.name)
    assert (desktop.conversations, desktop.texts(PREVIEWS)) == ([bob.name], [texts[-1]])
    assert (desktop.unread, desktop.driver.title) == ([], "chatd")
    for page in (desktop, phone, other):
        page.assert_no_errors()


def test_a_message_may_be_read_before_its_sender_has_the_response(
    create_account: CreateAccount, open_page: OpenPage
) -> None:
    ann, bob, cat = create_account("ann"), create_account("bob"), create_account("cat")
    page = open_page(ann)
    page.start_conversation(bob.name)
    page.run(HOLD_RESPONSES_TO_SENDS)
    page.send("one")
    page.until(lambda: bob.conversation(ann) == ["one"], "not sent")
    bob.mark_read(ann, 1)
    # This arrives later than Bob's position.
    cat.send(ann, "two")
    page.wait_for_text(PREVIEWS, "two")
    assert page.pending == ["one"]
    page.run("release()")
    page.wait_for_messages(["one"])
    page.wait_for_marks("read")


def test_messages_count_as_read_once_they_are_seen(
    create_account: CreateAccount, open_page: OpenPage
) -> None:
    """Not while the page is hidden, nor while older messages are on the screen."""
    ann, bob = create_account("ann"), create_account("bob")
    bob.send(ann, *[f"line\nof {number}" for number in range(30)])
    page = open_page(ann)
    page.wait_for_unread("30")
    ann.mark_read(bob, 10)
    page.wait_for_unread("20")
    page.open_conversation(bob)
    page.wait_for_text("#messages .new + .message .bubble", "line\nof 10")
    assert page.find("#newest").text == "20 new messages"
    assert (ann.unread(bob), page.unread) == (20, ["20"])
    page.find("#newest").click()
    page.until(lambda: ann.unread(bob) == 0, "not read")
    assert page.unread == []

    page.run(STUB_NOTIFICATIONS)
    page.open_settings()
    page.find("#notify").click()
    page.close_settings()
    page.run(SET_HIDDEN, True)
    bob.send(ann, "while hidden")
    page.until(lambda: page.driver.title == "(1) chatd", "not received")
    assert page.run("return notifications") == [[bob.name, "while hidden"]]
    assert ann.unread(bob) == 1
    page.run(SET_HIDDEN, False)
    page.until(lambda: ann.unread(bob) == 0, "not read")
    assert page.texts("#messages .new + .message .bubble") == ["while hidden"]
    assert page.run("return notifications") == []
    page.assert_no_errors()
