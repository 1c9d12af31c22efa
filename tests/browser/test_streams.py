"""The page receives messages by a stream, and by polls where streams do not get through."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from tests.browser.accounts import Account, numbered
from tests.browser.conftest import CreateAccount, OpenPage
from tests.browser.pages import Page
from tests.browser.proxy import Proxy
from tests.daemon import CHATS, TOKENS, Daemon, bearer, wait_until

SOON_SECONDS = 5

StartProxy = Callable[..., Proxy]

SPY_ON_TIMERS = """
const { setTimeout } = window;
window.delays = [];
window.setTimeout = (callback, delay, ...parameters) => {
  window.delays.push(delay);
  return setTimeout(callback, delay, ...parameters);
};
Math.random = () => 0;
"""

SOON_SILENT = """
const { setTimeout } = window;
window.setTimeout = (callback, delay) => setTimeout(callback, delay === 40000 ? 300 : delay);
"""

# It gives up on its first request of each kind, and pauses until something ends the pause.
IMPATIENT = """
const { setTimeout } = window;
const shorter = { 5000: 300, 15000: 300 };
window.setTimeout = (callback, delay) => setTimeout(callback, shorter[delay] ?? delay);
Math.random = () => 1000;
"""

RECONNECT = "dispatchEvent(new Event('online'))"


@pytest.fixture
def start_proxy(daemon: Daemon) -> Iterator[StartProxy]:
    """Starts proxies in front of the shared daemon, with the options of `Proxy`."""
    with ExitStack() as stack:
        yield lambda **options: stack.enter_context(Proxy(daemon, **options))


def open_conversation(open_page: OpenPage, account: Account, peer: Account, url: str) -> Page:
    """A page in which a conversation of one message is open."""
    peer.send(account, "first")
    page = open_page(account, url=url)
    page.open_conversation(peer)
    page.wait_for_messages(["first"])
    return page


def test_one_request_receives_all_messages(
    create_account: CreateAccount, open_page: OpenPage, start_proxy: StartProxy
) -> None:
    ann, bob, proxy = create_account("ann"), create_account("bob"), start_proxy()
    page = open_conversation(open_page, ann, bob, proxy.url)
    expected = ["first"]
    for text in numbered(range(10)):
        bob.send(ann, text)
        expected.append(text)
        page.wait_for_messages(expected)
    page.send("and an answer")
    page.wait_for_messages([*expected, "and an answer"])
    assert (proxy.streams, proxy.polls) == (1, 0)
    page.assert_no_errors()


def test_many_messages_arrive_in_order(create_account: CreateAccount, open_page: OpenPage) -> None:
    ann, bob = create_account("ann"), create_account("bob")
    page = open_page(ann)
    page.start_conversation(bob.name)
    texts = numbered(range(500))
    bob.send(ann, *texts)
    page.wait_for_messages(texts)
    assert (
        page.run(
            "return performance.getEntriesByType('resource')"
            ".filter((entry) => entry.name.includes('since=')).length"
        )
        == 0
    )


def test_a_hidden_page_polls(
    create_account: CreateAccount, open_page: OpenPage, start_proxy: StartProxy
) -> None:
    """Streams of hidden pages would occupy all connections that the browser has to the server."""
    ann, bob, proxy = create_account("ann"), create_account("bob"), start_proxy()
    page = open_conversation(open_page, ann, bob, proxy.url)
    window = page.driver.current_window_handle
    page.driver.switch_to.new_window("tab")
    wait_until(lambda: proxy.polls >= 2, SOON_SECONDS)
    bob.send(ann, "second")
    wait_until(lambda: proxy.polls >= 3, SOON_SECONDS)
    assert proxy.streams == 1
    page.driver.close()
    page.driver.switch_to.window(window)
    page.until(lambda: proxy.streams == 2, "no stream")
    polls = proxy.polls
    bob.send(ann, "third")
    page.wait_for_messages(["first", "second", "third"])
    assert (proxy.streams, proxy.polls) == (2, polls)


def test_the_pages_of_one_user_receive_the_same(
    create_account: CreateAccount, open_page: OpenPage
) -> None:
    ann, bob = create_account("ann"), create_account("bob")
    pages = [open_page(ann), open_page(ann)]
    for page in pages:
        page.start_conversation(bob.name)
    texts = numbered(range(10))
    bob.send(ann, *texts)
    for page in pages:
        page.wait_for_messages(texts)


def test_a_stream_that_is_cut_continues_at_its_cursor(
    create_account: CreateAccount, open_page: OpenPage, start_proxy: StartProxy
) -> None:
    ann, bob, proxy = create_account("ann"), create_account("bob"), start_proxy()
    page = open_conversation(open_page, ann, bob, proxy.url)
    expected = ["first"]
    for cuts in range(1, 6):
        texts = [f"{text} after {cuts} cuts" for text in numbered(range(5))]
        bob.send(ann, *texts[:3])
        proxy.cut()
        bob.send(ann, *texts[3:])
        expected += texts
        page.wait_for_messages(expected)
        page.until(lambda: proxy.streams > cuts, "no further stream")  # noqa: B023
    assert proxy.polls == 0
    page.assert_no_errors()


def test_a_stream_continues_after_the_server_has_crashed(
    daemon: Daemon, create_account: CreateAccount, open_page: OpenPage, start_proxy: StartProxy
) -> None:
    ann, bob, proxy = create_account("ann"), create_account("bob"), start_proxy()
    page = open_conversation(open_page, ann, bob, proxy.url)
    bob.send(ann, "second")
    daemon.kill()
    page.wait_offline()
    daemon.start()
    bob.send(ann, "third")
    page.wait_for_messages(["first", "second", "third"])
    assert proxy.polls == 0
    page.assert_no_errors()


def test_a_silent_stream_is_opened_again(
    create_account: CreateAccount, open_page: OpenPage, start_proxy: StartProxy
) -> None:
    ann, bob, proxy = create_account("ann"), create_account("bob"), start_proxy()
    page = open_conversation(open_page, ann, bob, proxy.url)
    page.run(SOON_SILENT + RECONNECT)
    page.until(lambda: proxy.streams >= 4, "the silent stream is not given up")
    bob.send(ann, "second")
    page.wait_for_messages(["first", "second"])
    assert (page.state, proxy.polls) == ("online", 0)


def test_polls_get_through_a_proxy_that_buffers(
    daemon: Daemon, create_account: CreateAccount, open_page: OpenPage, start_proxy: StartProxy
) -> None:
    ann, bob, proxy = create_account("ann"), create_account("bob"), start_proxy(buffering=True)
    page = open_conversation(open_page, ann, bob, proxy.url)
    expected = ["first"]
    for text in numbered(range(5)):
        bob.send(ann, text)
        expected.append(text)
        page.wait_for_messages(expected)
    assert proxy.streams == 1
    assert proxy.polls >= 2
    # No further stream for the life of the page ...
    page.run(RECONNECT)
    bob.send(ann, "last")
    page.wait_for_messages([*expected, "last"])
    assert proxy.streams == 1
    # ... and another page may get one.
    proxy.buffering = False
    polls = proxy.polls
    page.driver.refresh()
    page.wait_for_messages([*expected, "last"])
    page.until(lambda: proxy.streams == 2, "no stream after the reload")
    bob.send(ann, "by a stream")
    page.wait_for_messages([*expected, "last", "by a stream"])
    assert proxy.polls == polls
    page.assert_no_errors()


def test_a_token_revoked_elsewhere_ends_a_session_that_polls(
    daemon: Daemon, create_account: CreateAccount, open_page: OpenPage, start_proxy: StartProxy
) -> None:
    ann, proxy = create_account("ann"), start_proxy(accept="application/json")
    page = open_page(ann, url=proxy.url)
    page.until(lambda: proxy.polls >= 2, "no polls")
    assert daemon.request("DELETE", TOKENS, None, bearer(ann.token)).status == 204
    page.until(lambda: page.find("#login").is_displayed(), "still logged in")
    assert page.find("#login-error").text == "You were logged out."


def test_polls_replace_what_is_no_stream(
    create_account: CreateAccount, open_page: OpenPage, start_proxy: StartProxy
) -> None:
    ann, bob = create_account("ann"), create_account("bob")
    proxy = start_proxy(accept="application/json")
    page = open_conversation(open_page, ann, bob, proxy.url)
    bob.send(ann, "second")
    page.wait_for_messages(["first", "second"], SOON_SECONDS)
    assert proxy.streams == 1


def test_polls_are_for_browsers_that_cannot_read_streams(
    create_account: CreateAccount, open_page: OpenPage, start_proxy: StartProxy
) -> None:
    ann, bob, proxy = create_account("ann"), create_account("bob"), start_proxy()
    page = open_conversation(open_page, ann, bob, proxy.url)
    page.run("Object.defineProperty(Response.prototype, 'body', { value: undefined })")
    page.run(RECONNECT)
    page.until(lambda: proxy.polls >= 2, "no polls")
    bob.send(ann, "second")
    page.wait_for_messages(["first", "second"])
    assert proxy.streams == 2


def test_a_service_that_cannot_be_reached_is_no_reason_to_poll(
    create_account: CreateAccount, open_page: OpenPage, start_proxy: StartProxy
) -> None:
    """It does not send first bytes either, but a poll shows that it is away."""
    ann, bob, proxy = create_account("ann"), create_account("bob"), start_proxy()
    page = open_conversation(open_page, ann, bob, proxy.url)
    page.run(IMPATIENT)
    proxy.is_stalled.set()
    page.run(RECONNECT)
    page.wait_offline()
    assert proxy.polls == 1
    proxy.is_stalled.clear()
    page.run(RECONNECT)
    page.wait_online()
    bob.send(ann, "second")
    page.wait_for_messages(["first", "second"])
    assert (proxy.streams, proxy.polls) == (3, 1)


def test_a_superseded_page_waits_until_it_is_visible_again(
    create_account: CreateAccount, daemon: Daemon, open_page: OpenPage, start_proxy: StartProxy
) -> None:
    ann, bob, proxy = create_account("ann"), create_account("bob"), start_proxy()
    page = open_conversation(open_page, ann, bob, proxy.url)
    page.run(SPY_ON_TIMERS)
    for _ in range(8):
        client = daemon.client(bearer(ann.token))
        client.send("GET", f"{CHATS}?since=now", headers={"Accept": "text/event-stream"})
    page.until(lambda: page.run("return window.delays.includes(30000)"), "not superseded")
    assert (page.state, proxy.streams) == ("online", 1)
    bob.send(ann, "second")
    page.run("document.dispatchEvent(new Event('visibilitychange'))")
    page.wait_for_messages(["first", "second"], SOON_SECONDS)
    assert (proxy.streams, proxy.polls) == (2, 0)
