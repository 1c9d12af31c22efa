"""Nothing but the list of messages scrolls, however long a conversation is."""

import pytest
from selenium.webdriver.common.keys import Keys

from tests.browser.accounts import numbered
from tests.browser.conftest import PHONE, CreateAccount, OpenPage
from tests.browser.pages import Page
from tests.examples import examples

COUNT = examples(112, deep=512)
"""Many times as many as are visible at once."""


def document_overflow(page: Page) -> int:
    """By how many pixels the document could scroll."""
    return int(
        page.run(
            "const root = document.documentElement;"
            "return Math.max(root.scrollHeight - innerHeight, root.scrollWidth - innerWidth)"
        )
    )


def scroll_to(page: Page, position: int) -> None:
    """Scroll the list, and wait until it is drawn so: input meanwhile would scroll from before."""
    page.driver.execute_async_script(
        "const [position, done] = arguments;"
        "document.getElementById('scroller').scrollTop = position;"
        "requestAnimationFrame(() => requestAnimationFrame(done));",
        position,
    )


def scroll_position(page: Page) -> float:
    return float(page.run("return document.getElementById('scroller').scrollTop"))


def swipe_down(page: Page, x: int, y: int) -> None:
    """Touch the page and move the finger down, which scrolls towards the beginning."""
    for kind, distance in [("touchStart", 0), *(("touchMove", d) for d in range(20, 220, 20))]:
        touch: dict[str, object] = {"type": kind, "touchPoints": [{"x": x, "y": y + distance}]}
        page.devtools("Input.dispatchTouchEvent", touch)
    page.devtools("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})


def assert_in_place(page: Page) -> None:
    """The document has not scrolled, and the header and the input field are visible."""
    assert page.run("return [scrollX, scrollY]") == [0, 0]
    for selector in ("#peer-name", "#compose"):
        top, bottom, height = page.run(
            "const box = document.querySelector(arguments[0]).getBoundingClientRect();"
            "return [box.top, box.bottom, innerHeight]",
            selector,
        )
        assert 0 <= top < bottom <= height, selector


def test_only_the_message_list_scrolls(create_account: CreateAccount, open_page: OpenPage) -> None:
    ann, bob = create_account("ann"), create_account("bob")
    ann.send(bob, *numbered(range(COUNT)))
    page = open_page(ann)
    page.open_conversation(bob)
    page.until(lambda: len(page.messages) == 50, "no messages")
    for loaded in (*range(100, COUNT, 50), COUNT):
        page.load_older()
        page.wait_for_messages(numbered(range(COUNT - loaded, COUNT)))
    assert not page.find("#load-older").is_displayed()

    for size in ((1100, 657), PHONE):
        page.emulate(*size)
        assert document_overflow(page) <= 0
        scroll_to(page, 2000)
        middle = {"x": size[0] - 100, "y": size[1] // 2}
        wheel = {"type": "mouseWheel", "deltaX": 0, "deltaY": 600, **middle}
        page.devtools("Input.dispatchMouseEvent", wheel)
        page.until(lambda: scroll_position(page) == 2600, "the wheel does not scroll the list")
        page.run("scrollTo(0, 1000)")
        assert_in_place(page)
        for selector in ("#scroller", "#text"):
            for key in (Keys.PAGE_DOWN, Keys.PAGE_UP):
                page.find(selector).send_keys(key)
                assert_in_place(page)

    scroll_to(page, 2000)
    swipe_down(page, **middle)
    page.until(lambda: scroll_position(page) < 2000, "a swipe does not scroll the list")
    assert_in_place(page)


@pytest.mark.parametrize("size", [(1100, 657), PHONE])
def test_new_messages_are_in_view(
    create_account: CreateAccount, open_page: OpenPage, size: tuple[int, int]
) -> None:
    ann, bob = create_account("ann"), create_account("bob")
    ann.send(bob, *numbered(range(60)))
    page = open_page(ann, size=size)
    page.open_conversation(bob)
    page.wait_for_messages(numbered(range(10, 60)))

    def at_end() -> bool:
        return bool(
            page.run(
                "const { scrollHeight, scrollTop, clientHeight } ="
                " document.getElementById('scroller');"
                "return scrollHeight - scrollTop - clientHeight < 2"
            )
        )

    page.until(at_end, "opened elsewhere than at the end")
    bob.send(ann, "new")
    page.wait_for_messages([*numbered(range(10, 60)), "new"])
    page.until(at_end, "the new message is out of view")
    page.emulate(size[0], size[1] - 250)
    page.until(at_end, "a keyboard on the screen covers the end")

    # A reader of older messages is left there, and offered a way to the new ones.
    page.run("document.getElementById('scroller').scrollTop = 500")
    page.until(lambda: not at_end(), "did not scroll")
    bob.send(ann, "newer")
    page.until(lambda: page.find("#newest").is_displayed(), "no word of the new message")
    assert scroll_position(page) == 500
    page.find("#newest").click()
    page.until(at_end, "not at the end")
    assert not page.find("#newest").is_displayed()
