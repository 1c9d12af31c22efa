"""The API documentation in a browser, and the README's screenshots of the page."""

from selenium.webdriver.common.keys import Keys

from tests.browser.accounts import Account
from tests.browser.conftest import OpenPage, TakeScreenshot
from tests.browser.contrast import low_contrast
from tests.daemon import CHATS, Daemon


def test_the_javascript_example_runs(daemon: Daemon, open_page: OpenPage) -> None:
    page = open_page(path="/api/v1/docs/")
    source = page.texts('[data-example="session.js"]')[0]
    assert source.count("http://127.0.0.1:8080") == 1
    source = source.replace("http://127.0.0.1:8080", daemon.url)
    page.driver.set_script_timeout(20)
    received = page.driver.execute_async_script(
        "const done = arguments[0];"
        "(async () => {"
        + source
        + "; return [received, streamed] })().then(done, (e) => done(String(e)))"
    )
    assert received == [["hai", "how are you?"]] * 2
    entries = page.driver.get_log("browser")  # type: ignore[no-untyped-call]
    assert [each["message"] for each in entries if each["level"] == "SEVERE"] == []


def test_an_error_links_to_its_documentation(daemon: Daemon, open_page: OpenPage) -> None:
    problem = daemon.request("GET", CHATS).json
    page = open_page(path=problem["type"])
    assert page.find("dt:target").text.startswith("unauthorized")
    for dark in (False, True):
        page.emulate(900, 800, dark=dark)
        assert low_contrast(page) == []


def test_screenshots(
    own_daemon: Daemon, open_page: OpenPage, take_screenshot: TakeScreenshot
) -> None:
    """Those of the README; all that they show has enough contrast."""
    names = ("ann", "bob", "Catherine", "deniz", "Ewa")
    ann, bob, cat, deniz, ewa = (Account.create(own_daemon, name) for name in names)
    ann.send(ewa, "Thanks, that was it!")
    deniz.send(ann, "The photos are at https://photos.example.org/2026", "And a film of it")
    cat.send(ann, "Are you coming tonight?")
    desktop = open_page(ann, url=own_daemon.url, size=(1080, 700))
    phone = open_page(ann, url=own_daemon.url, size=(390, 760), dark=True)

    desktop.wait_for_unread("1", "2")
    desktop.start_conversation("bob")
    texts = ["Did the train get out of the tunnel?"]
    desktop.send(texts[-1])
    desktop.wait_for_messages(texts)
    texts += ["Just now!", "And everything you wrote meanwhile was here at once."]
    bob.send(ann, *texts[1:])
    desktop.wait_for_messages(texts)
    texts.append("Each message once, and in order. Grüße, привет, שלום, مرحبا")
    desktop.send(texts[-1])
    desktop.wait_for_messages(texts)
    texts.append("if a < b and b < c:\n    print('as it was typed')")
    bob.send(ann, texts[-1])
    desktop.wait_for_messages(texts)
    texts.append("See you at eight, at https://station.example.org/exits#north")
    desktop.send("See you at nine, at https://station.example.org/exits#north")
    bob.mark_read(ann, 2)
    desktop.wait_for_marks("read", "read", "sent")
    desktop.press(Keys.ARROW_UP, Keys.CONTROL + "a", texts[-1], Keys.ENTER)
    desktop.wait_for_messages(texts)
    take_screenshot(desktop, "page-light.png")
    assert low_contrast(desktop) == []

    phone.until(lambda: len(phone.conversations) == 4, "the phone is behind")
    assert low_contrast(phone) == []
    phone.open_conversation(bob)
    phone.wait_for_messages(texts)
    take_screenshot(phone, "page-phone-dark.png")
    assert low_contrast(phone) == []
    assert phone.run("return document.documentElement.scrollWidth <= innerWidth")
    assert not phone.find(".sidebar").is_displayed()
    phone.find("#back").click()
    phone.until(lambda: phone.find("#conversations").is_displayed(), "no way back")
