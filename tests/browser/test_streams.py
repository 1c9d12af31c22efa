"""The page receives messages by a stream, and by polls where streams do not get through."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, closing
from typing import Protocol

import pytest

from tests.browser.accounts import Account, numbered
from tests.browser.conftest import CreateAccount, OpenPage
from tests.browser.pages import TIMEOUT_SECONDS, Page
from tests.browser.proxy import Proxy
from tests.daemon import CHATS, TOKENS, Client, Daemon, bearer, wait_until
from tests.examples import examples

SPY_ON_TIMERS = """
const { setTimeout } = window;
window.delays = [];
window.setTimeout = (callback, delay) => {
  window.delays.push(delay);
  return setTimeout(callback, delay);
};
Math.random = () => 0;
"""

SOON_SILENT = """
const { setTimeout } = window;
window.setTimeout = (callback, delay) => setTimeout(callback, delay === 40000 ? 300 : delay);
"""

# Requests are given up soon while the page is impatient, and only reconnecting ends a pause.
IMPATIENT = """
const { setTimeout } = window;
window.impatient = true;
window.setTimeout = (callback, delay) => {
  const isRequest = delay === 5000 || delay === 15000;
  return setTimeout(callback, window.impatient && isRequest ? 300 : delay);
};
Math.random = () => 1000;
"""

RECONNECT = "dispatchEvent(new Event('online'));"


class Chat:
    """Ann's page behind a proxy, in which the conversation with Bob is open."""

    def __init__(self, page: Page, proxy: Proxy, ann: Account, bob: Account) -> None:
        self.page = page
        self.proxy = proxy
        self.ann = ann
        self.bob = bob
        self.messages: list[str] = []

    def receive(self, *texts: str) -> None:
        """Have Bob send messages, and wait until the page shows them after the earlier ones."""
        self.bob.send(self.ann, *texts)
        self.wait_for(*texts)

    def wait_for(self, *texts: str) -> None:
        """Wait until the page shows these messages after the earlier ones."""
        self.messages += texts
        self.page.wait_for_messages(self.messages)


class OpenChat(Protocol):
    """Opens a chat; the options are those of `Proxy` and `OpenPage`."""

    def __call__(
        self, *, buffering: bool = False, accept: str = "", hideable: bool = False
    ) -> Chat: ...


@pytest.fixture
def open_chat(
    daemon: Daemon, create_account: CreateAccount, open_page: OpenPage
) -> Iterator[OpenChat]:
    with ExitStack() as stack:

        def open_one(*, buffering: bool = False, accept: str = "", hideable: bool = False) -> Chat:
            ann, bob = create_account("ann"), create_account("bob")
            proxy = stack.enter_context(Proxy(daemon, buffering=buffering, accept=accept))
            page = open_page(ann, url=proxy.url, hideable=hideable)
            page.start_conversation(bob.name)
            chat = Chat(page, proxy, ann, bob)
            # One of these may come with the conversation when it is loaded, but not both: from now
            # on the page receives.
            chat.receive("first")
            chat.receive("second")
            return chat

        yield open_one


def test_one_request_receives_all_messages(open_chat: OpenChat) -> None:
    chat = open_chat()
    for text in numbered(range(examples(5, deep=10))):
        chat.receive(text)
    chat.page.send("and an answer")
    chat.wait_for("and an answer")
    assert (chat.proxy.streams, chat.proxy.polls) == (1, 0)
    chat.page.assert_no_errors()


def test_many_messages_arrive_in_order(open_chat: OpenChat) -> None:
    chat = open_chat()
    chat.receive(*numbered(range(examples(150, deep=500))))
    assert (chat.proxy.streams, chat.proxy.polls) == (1, 0)


def test_a_hidden_page_polls(open_chat: OpenChat) -> None:
    """Streams of hidden pages would occupy all connections that the browser has to the server."""
    chat = open_chat(hideable=True)
    page, proxy = chat.page, chat.proxy
    window = page.driver.current_window_handle
    page.driver.switch_to.new_window("tab")
    # The first poll has no wait.
    wait_until(lambda: proxy.polls == 2, TIMEOUT_SECONDS)
    chat.bob.send(chat.ann, "while hidden")
    wait_until(lambda: proxy.polls == 3, TIMEOUT_SECONDS)
    assert proxy.streams == 1
    page.driver.close()
    page.driver.switch_to.window(window)
    chat.wait_for("while hidden")
    page.until(lambda: proxy.streams == 2, "no stream")
    chat.receive("while visible")
    assert (proxy.streams, proxy.polls) == (2, 3)


def test_a_stream_that_is_cut_continues_at_its_cursor(open_chat: OpenChat) -> None:
    chat = open_chat()
    count = examples(3, deep=5)
    for cuts in range(count):
        texts = [f"{text} after {cuts} cuts" for text in numbered(range(5))]
        chat.bob.send(chat.ann, *texts[:3])
        chat.proxy.cut()
        chat.bob.send(chat.ann, *texts[3:])
        chat.wait_for(*texts)
    assert chat.proxy.streams > count
    assert chat.proxy.polls == 0
    chat.page.assert_no_errors()


def test_a_stream_continues_after_the_server_has_crashed(
    daemon: Daemon, open_chat: OpenChat
) -> None:
    chat = open_chat()
    chat.bob.send(chat.ann, "before")
    daemon.kill()
    chat.page.wait_offline()
    daemon.start()
    chat.bob.send(chat.ann, "after")
    chat.wait_for("before", "after")
    assert chat.proxy.polls == 0
    chat.page.assert_no_errors()


def test_a_server_of_version_1_will_do(
    daemon: Daemon, create_account: CreateAccount, open_page: OpenPage
) -> None:
    ann, bob = create_account("ann"), create_account("bob")
    bob.send(ann, "before")
    with Proxy(daemon, version=1) as proxy:
        page = open_page(ann, url=proxy.url)
        assert (page.conversations, page.unread) == ([bob.name], [])
        bob.send(ann, "now")
        page.until(lambda: page.unread == ["1"], "not received")
        page.open_conversation(bob)
        page.send("an answer")
        page.wait_for_messages(["before", "now", "an answer"])
        assert (page.unread, page.marks) == ([], [None])
        assert page.texts("#messages .actions") == []
        page.assert_no_errors()


def test_a_silent_stream_is_opened_again(open_chat: OpenChat) -> None:
    chat = open_chat()
    chat.page.run(SOON_SILENT + RECONNECT)
    chat.page.until(lambda: chat.proxy.streams >= 4, "the silent stream is not given up")
    chat.receive("third")
    assert (chat.page.state, chat.proxy.polls) == ("online", 0)


def test_polls_get_through_a_proxy_that_buffers(open_chat: OpenChat) -> None:
    chat = open_chat(buffering=True)
    page, proxy = chat.page, chat.proxy
    for text in numbered(range(examples(3, deep=5))):
        chat.receive(text)
    assert proxy.streams == 1
    assert proxy.polls >= 2
    # No further stream for the life of the page ...
    proxy.buffering = False
    page.run(RECONNECT)
    chat.receive("by a poll")
    assert proxy.streams == 1
    # ... and another page gets one.
    page.driver.refresh()
    page.until(lambda: proxy.streams == 2, "no stream after the reload")
    polls = proxy.polls
    chat.receive("by a stream")
    assert proxy.polls == polls
    page.assert_no_errors()


def test_polls_replace_what_is_no_stream(open_chat: OpenChat) -> None:
    chat = open_chat(accept="application/json")
    chat.receive("third")
    assert chat.proxy.streams == 1


def test_polls_are_for_browsers_that_cannot_read_streams(open_chat: OpenChat) -> None:
    chat = open_chat()
    chat.page.run("Object.defineProperty(Response.prototype, 'body', { value: undefined });")
    chat.page.run(RECONNECT)
    chat.page.until(lambda: chat.proxy.polls >= 2, "no polls")
    chat.receive("third")
    assert chat.proxy.streams == 2


def test_a_service_that_cannot_be_reached_is_no_reason_to_poll(open_chat: OpenChat) -> None:
    """It does not send first bytes either, but then a poll gets no response."""
    chat = open_chat()
    page, proxy = chat.page, chat.proxy
    page.run(IMPATIENT)
    proxy.is_stalled.set()
    page.run(RECONNECT)
    page.wait_offline()
    assert (proxy.streams, proxy.polls) == (2, 1)
    proxy.is_stalled.clear()
    page.run("window.impatient = false;" + RECONNECT)
    page.wait_online()
    chat.receive("third")
    assert (proxy.streams, proxy.polls) == (3, 1)


def test_a_superseded_page_waits_until_it_is_visible(daemon: Daemon, open_chat: OpenChat) -> None:
    chat = open_chat()
    page, proxy = chat.page, chat.proxy
    page.run(SPY_ON_TIMERS)
    with ExitStack() as stack:
        for _ in range(8):
            client = stack.enter_context(closing(Client(daemon.port, bearer(chat.ann.token))))
            client.send("GET", f"{CHATS}?since=now", headers={"Accept": "text/event-stream"})
        page.until(lambda: page.run("return delays.includes(30000)"), "not superseded")
        assert (page.state, proxy.streams) == ("online", 1)
        chat.bob.send(chat.ann, "third")
        page.run("document.dispatchEvent(new Event('visibilitychange'))")
        chat.wait_for("third")
    assert (proxy.streams, proxy.polls) == (2, 0)


def test_a_token_revoked_elsewhere_ends_a_session_that_polls(
    daemon: Daemon, open_chat: OpenChat
) -> None:
    chat = open_chat(accept="application/json")
    assert daemon.request("DELETE", TOKENS, None, bearer(chat.ann.token)).status == 204
    chat.page.until(lambda: chat.page.find("#login").is_displayed(), "still logged in")
    assert chat.page.find("#login-error").text == "You were logged out."
