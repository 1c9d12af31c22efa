"""The web page in Chromium: two people, a server that goes away, and hostile words."""

import signal
from collections.abc import Callable
from functools import partial

from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from tests.browser.conftest import OpenPage
from tests.browser.pages import Page
from tests.daemon import CHATS, TOKENS, USERS, Daemon, bearer

Picture = Callable[[Page, str], None]

HOSTILE = [
    "<script>document.title = 'taken'</script>",
    "<img src=x onerror=\"document.title = 'taken'\">",
    "</li></ol><h1>taken</h1>",
    "&lt;b&gt; &amp; {{7*7}} ${7*7} javascript:alert(1)",
    "\u202etxt.exe\u202c and \u200b zero width",
    "a" * 500,
    "line one\n  line two\n\nline four",
    "'\"`\\",
]


def tell(daemon: Daemon, auth: str, to: int, text: str) -> None:
    """Send a message past the page."""
    answer = daemon.ask("POST", CHATS, {"user_id": to, "message": text}, auth)
    assert answer.status == 201, answer


def test_two_people_talk(open_page: OpenPage) -> None:
    ann, bob = open_page(), open_page()
    ann.register("ann")
    bob.register("bob")
    ann.write_to("bob")
    ann.say("Hello, are you there?")
    bob.until(lambda: bob.people == ["ann"], "bob sees nobody")
    bob.until(lambda: bob.texts("#people .count") == ["1"], "nothing counts as not read")
    assert bob.driver.title == "(1) chatd"
    bob.find("#people button").click()
    bob.sees("Hello, are you there?")
    bob.until(lambda: bob.driver.title == "chatd", "what was seen still counts as not read")
    for number in range(5):
        bob.say(f"{number} from bob")
        ann.until(partial(ann.has_said, 2 * number + 2), "bob's message is missing")
        ann.say(f"{number} from ann")
    whole = ["Hello, are you there?"]
    whole += [f"{number} from {name}" for number in range(5) for name in ("bob", "ann")]
    ann.sees(*whole)
    bob.sees(*whole)
    for page in (ann, bob):
        page.logs_nothing_bad()


def test_a_restarted_server_is_caught_up_with(daemon: Daemon, open_page: OpenPage) -> None:
    daemon.register("bob")
    bob = daemon.log_in("bob")
    page = open_page()
    page.register("ann")
    page.write_to("bob")
    page.say("before")
    page.sees("before")
    tell(daemon, bob, 2, "also before")
    page.sees("before", "also before")

    assert daemon.stop() in (0, -signal.SIGTERM)
    page.is_offline()
    assert page.find("#status").text == "Offline, trying again"
    page.say("written while it was away")
    assert page.texts("#messages .waiting .when") == ["Sending …"]

    daemon.start()
    tell(daemon, bob, 2, "and then")
    page.is_online()
    page.until(lambda: len(page.said) == 4, "not caught up")
    page.until(lambda: not page.texts("#messages .waiting"), "a message is stuck")
    assert page.said[:2] == ["before", "also before"]
    assert set(page.said[2:]) == {"written while it was away", "and then"}
    # Each exactly once in the store, too.
    page.driver.refresh()
    page.is_online()
    page.until(lambda: len(page.said) == 4, "not there after a reload")
    page.logs_nothing_bad()


def test_what_was_not_sent_survives_a_reload(daemon: Daemon, open_page: OpenPage) -> None:
    daemon.register("bob")
    page = open_page()
    page.register("ann")
    page.write_to("bob")
    page.until(lambda: page.find("#text").is_displayed(), "nowhere to write")
    page.driver.execute_cdp_cmd("Network.enable", {})
    page.driver.execute_cdp_cmd("Network.setBlockedURLs", {"urls": ["*/api/v1/chats/"]})
    page.say("kept")
    page.until(lambda: page.texts("#messages .waiting .bubble") == ["kept"], "not waiting")
    page.driver.execute_cdp_cmd("Network.setBlockedURLs", {"urls": []})
    page.driver.refresh()
    page.sees("kept")


def test_hostile_words_stay_text(daemon: Daemon, open_page: OpenPage) -> None:
    daemon.register("mallory")
    mallory = daemon.log_in("mallory")
    page = open_page()
    page.register("ann")
    for text in HOSTILE:
        tell(daemon, mallory, 2, text)
    page.until(lambda: page.people == ["mallory"], "no message came")
    page.find("#people button").click()
    page.sees(*HOSTILE)
    assert page.driver.title == "chatd"
    assert page.driver.find_elements(By.CSS_SELECTOR, "#messages :is(script, img, h1, b)") == []
    assert page.texts("#people .last") == [HOSTILE[-1]]
    assert page.run("return document.documentElement.scrollWidth <= innerWidth")
    page.logs_nothing_bad()


def test_hostile_names_stay_text(daemon: Daemon, open_page: OpenPage) -> None:
    page = open_page()
    page.register("ann")
    # The service has no such names; a page must not depend on that.
    name = "<img src=x onerror=alert(1)>\u202e"
    page.run(
        "localStorage.setItem('chatd.people.1', arguments[0])",
        '[{"id":7,"name":' + repr(name).replace("'", '"') + ',"last":"<b>","at":null,"order":1}]',
    )
    page.driver.refresh()
    page.until(lambda: page.people == [name], "the name is not shown")
    assert page.driver.find_elements(By.CSS_SELECTOR, "#people :is(img, b)") == []
    page.type("#find", "<i>nobody</i>" + Keys.ENTER)
    page.until(
        lambda: page.find("#find-error").text == "There is no <i>nobody</i> here.",
        "no word about a name that is not there",
    )


def test_the_policy_stops_what_would_get_in(open_page: OpenPage) -> None:
    page = open_page()
    for attempt in [
        "document.body.innerHTML = '<p>taken</p>'",
        "document.head.insertAdjacentHTML('beforeend', '<p>taken</p>')",
        "document.head.append(Object.assign(document.createElement('script'), {src: '/x.js'}))",
    ]:
        refused = page.run(f"try {{ {attempt}; return false }} catch {{ return true }}")
        assert refused, attempt
    page.run(
        "const s = document.createElement('script'); s.append('window.taken = 1');"
        "document.head.append(s)"
    )
    assert page.run("return window.taken") is None
    page.run(
        "const s = document.createElement('style'); s.textContent = 'body { color: red }';"
        "document.head.append(s)"
    )
    assert page.run("return getComputedStyle(document.body).color") != "rgb(255, 0, 0)"
    assert page.run("return fetch('http://127.0.0.1:9/').then(() => true, () => false)") is False
    third = page.run(
        "return performance.getEntriesByType('resource').map((entry) => entry.name)"
        ".filter((name) => !name.startsWith(location.origin))"
    )
    assert set(third) <= {"http://127.0.0.1:9/"}


def test_the_token_survives_a_reload_and_not_the_log_out(
    daemon: Daemon, open_page: OpenPage
) -> None:
    page = open_page()
    page.register("ann")
    token = page.run("return JSON.parse(localStorage.getItem('chatd.session')).token")
    assert daemon.ask("GET", USERS, None, bearer(token)).status == 200
    page.driver.refresh()
    page.is_online()
    assert page.texts("#my-name") == ["ann"]

    page.find("#logout").click()
    page.until(lambda: page.find("#entry").is_displayed(), "still logged in")
    assert daemon.ask("GET", USERS, None, bearer(token)).status == 401
    left = page.run("return Object.keys(localStorage)")
    assert [name for name in left if "session" in name or "people" in name] == []
    page.driver.refresh()
    page.until(lambda: page.find("#username").is_displayed(), "no way to log in")
    page.log_in("ANN")
    assert page.texts("#my-name") == ["ann"]


def test_a_token_that_was_revoked_elsewhere_ends_the_stay(
    daemon: Daemon, open_page: OpenPage
) -> None:
    page = open_page()
    page.register("ann")
    token = page.run("return JSON.parse(localStorage.getItem('chatd.session')).token")
    assert daemon.ask("DELETE", TOKENS, None, bearer(token)).status == 204
    page.until(lambda: page.find("#entry").is_displayed(), "still logged in")
    assert page.find("#entry-error").text == "You were logged out."


def test_wrong_passwords_and_taken_names_are_told(daemon: Daemon, open_page: OpenPage) -> None:
    daemon.register("ann")
    page = open_page()
    page.type("#username", "ann")
    page.type("#password", "wrong!" + Keys.ENTER)
    page.until(lambda: "no such username" in page.find("#entry-error").text, "no word")
    page.find("#choose-register").click()
    page.type("#email", "ann@example.org" + Keys.ENTER)
    page.until(lambda: "is or was somebody" in page.find("#entry-error").text, "no word")


def test_everything_can_be_done_with_the_keyboard(daemon: Daemon, open_page: OpenPage) -> None:
    daemon.register("bob")
    bob = daemon.log_in("bob")
    daemon.register("cat")
    cat = daemon.log_in("cat")
    page = open_page()
    page.register("ann")
    tell(daemon, bob, 3, "I am bob")
    tell(daemon, cat, 3, "I am cat")
    page.until(lambda: len(page.people) == 2, "nobody wrote")

    def press(*keys: str) -> None:
        for key in keys:
            page.driver.switch_to.active_element.send_keys(key)

    def focused() -> str:
        return str(page.run("return document.activeElement.id || document.activeElement.innerText"))

    assert focused() == "find"
    press(Keys.TAB, Keys.TAB)
    assert "I am cat" in focused()
    press(Keys.ARROW_DOWN)
    assert "I am bob" in focused()
    press(Keys.ENTER)
    page.sees("I am bob")
    assert focused() == "text"
    press("Hello", Keys.SHIFT + Keys.ENTER + Keys.NULL, "bob", Keys.ENTER)
    page.sees("I am bob", "Hello\nbob")
    press(Keys.ESCAPE)
    page.until(lambda: "bob" in focused(), "the focus is lost")


def test_older_messages_come_on_demand(daemon: Daemon, open_page: OpenPage) -> None:
    daemon.register("bob")
    bob = daemon.log_in("bob")
    page = open_page()
    page.register("ann")
    for number in range(1, 121):
        tell(daemon, bob, 2, f"{number}")
    page.until(lambda: page.texts("#people .last") == ["120"], "not all came")
    page.find("#people button").click()
    page.sees(*(f"{number}" for number in range(71, 121)))
    for first in (21, 1):
        page.run("document.getElementById('older').click()")
        page.sees(*(f"{number}" for number in range(first, 121)))
    page.until(lambda: not page.find("#older").is_displayed(), "older than the beginning")


def test_labels_and_live_regions_are_there(open_page: OpenPage) -> None:
    page = open_page()
    nameless = page.run(
        "return [...document.querySelectorAll('input, textarea')]"
        ".filter((field) => !field.labels.length).map((field) => field.id)"
    )
    assert nameless == []
    assert page.find("#messages").get_attribute("aria-live") == "polite"
    assert page.find("#status").get_attribute("role") == "status"


def test_the_javascript_example_of_the_documentation_runs(
    daemon: Daemon, open_page: OpenPage
) -> None:
    page = open_page()
    page.driver.get(f"{daemon.url}/api/v1/docs/")
    source = page.texts('[data-example="session.js"]')[0]
    assert source.count("http://127.0.0.1:8080") == 1
    source = source.replace("http://127.0.0.1:8080", daemon.url)
    page.driver.set_script_timeout(20)
    received = page.driver.execute_async_script(
        "const done = arguments[0];"
        "(async () => {" + source + "; return received })().then(done, (e) => done(String(e)))"
    )
    assert received == ["hai", "how are you?"]
    entries = page.driver.get_log("browser")  # type: ignore[no-untyped-call]
    assert [each["message"] for each in entries if each["level"] == "SEVERE"] == []


def test_an_error_leads_to_its_explanation(daemon: Daemon, open_page: OpenPage) -> None:
    problem = daemon.ask("GET", CHATS).json
    page = open_page()
    page.driver.get(daemon.url + problem["type"])
    assert page.find("dt:target").text.startswith("unauthorized")
    for dark in (False, True):
        page.look(900, 800, dark)
        assert page.run(CONTRAST) == []


CONTRAST = r"""
const light = (text) => {
  const parts = text.match(/[0-9.]+/g).map(Number).slice(0, 3).map((part) => part / 255)
    .map((part) => part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4);
  return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2];
};
const behind = (element) => {
  for (; element; element = element.parentElement) {
    const color = getComputedStyle(element).backgroundColor;
    if (!/^rgba.*, 0\)$/.test(color)) return color;
  }
  return "rgb(255, 255, 255)";
};
const poor = [];
for (const element of document.querySelectorAll("body *")) {
  const says = [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
  if (!says || !element.checkVisibility() || element.closest(".unseen, noscript")) continue;
  const [one, two] = [getComputedStyle(element).color, behind(element)].map(light);
  const ratio = (Math.max(one, two) + 0.05) / (Math.min(one, two) + 0.05);
  if (ratio < 4.5) poor.push(`${element.tagName}.${element.className} ${ratio.toFixed(2)}`);
}
return poor;
"""


def test_pictures_of_the_real_thing(daemon: Daemon, open_page: OpenPage, picture: Picture) -> None:
    """The pictures of the README, and the contrast (WCAG AA) of all that is on them."""
    bob = daemon.register("bob")
    daemon.register("Catherine")
    bobs, cats = daemon.log_in("bob"), daemon.log_in("Catherine")
    desk = open_page(width=1080, height=700)
    desk.register("ann")
    phone = open_page(width=390, height=760, dark=True)
    phone.log_in("ann")

    tell(daemon, cats, 3, "Are you coming tonight?")
    desk.until(lambda: desk.people == ["Catherine"], "no message")
    desk.write_to("bob")
    desk.say("Did the train get out of the tunnel?")
    desk.until(lambda: len(desk.said) == 1, "not sent")
    for text in ("Just now!", "And everything you wrote meanwhile was here at once."):
        tell(daemon, bobs, 3, text)
    desk.until(lambda: len(desk.said) == 3, "no answer")
    desk.say("Each message once, and in order. Grüße, привет, שלום, مرحبا")
    desk.until(lambda: len(desk.said) == 4, "not sent")
    tell(daemon, bobs, 3, "if a < b and b < c:\n    print('as it was typed')")
    desk.until(lambda: len(desk.said) == 5, "no answer")
    desk.until(lambda: not desk.texts("#messages .waiting"), "still sending")
    picture(desk, "page-light.png")
    assert desk.run(CONTRAST) == []

    phone.until(lambda: len(phone.people) == 2, "the phone is behind")
    assert phone.run(CONTRAST) == []
    phone.find(f'#people button[data-id="{bob}"]').click()
    phone.until(lambda: len(phone.said) == 5, "no conversation on the phone")
    picture(phone, "page-phone-dark.png")
    assert phone.run(CONTRAST) == []
    assert phone.run("return document.documentElement.scrollWidth <= innerWidth")
    assert not phone.find(".side").is_displayed()
    phone.find("#back").click()
    phone.until(lambda: phone.find("#people").is_displayed(), "no way back")
