"""The page after the network or the server was away."""

import json

from tests.browser.accounts import numbered
from tests.browser.conftest import PHONE, CreateAccount, OpenPage
from tests.daemon import Daemon
from tests.examples import examples

SOON_SECONDS = 5

BREAKABLE_FETCH = """
const fetch = window.fetch;
window.failures = 0;
window.fetch = (...parameters) => {
  if (!window.broken) return fetch(...parameters);
  window.failures += 1;
  return Promise.reject(new TypeError());
};
Math.random = () => 0.999;
"""


def test_the_page_continues_as_soon_as_the_network_is_back(
    create_account: CreateAccount, open_page: OpenPage
) -> None:
    ann, bob = create_account("ann"), create_account("bob")
    page = open_page(ann)
    page.start_conversation(bob.name)
    page.send("before")
    page.wait_for_messages(["before"])
    # Pauses are random: the longest ones are what the network's return has to end.
    page.run("Math.random = () => 0.999")
    page.set_offline(True)
    page.wait_offline()
    page.send("queued")
    assert page.pending == ["queued"]
    page.emulate(*PHONE)
    assert page.find("#conversation-status").text == "Offline, trying again"
    bob.send(ann, "meanwhile")
    page.set_offline(False)
    page.until(lambda: page.state == "online", "not online", SOON_SECONDS)
    page.wait_for_messages(["before", "meanwhile", "queued"], SOON_SECONDS)
    assert ann.conversation(bob) == ["before", "meanwhile", "queued"]


def test_the_page_continues_as_soon_as_it_is_visible(
    create_account: CreateAccount, open_page: OpenPage
) -> None:
    ann, bob = create_account("ann"), create_account("bob")
    page = open_page(ann)
    page.start_conversation(bob.name)
    page.run(BREAKABLE_FETCH)
    page.run("window.broken = true; dispatchEvent(new Event('offline'))")
    page.wait_offline()
    page.send("queued")
    # By now the next attempt is seconds away.
    page.until(lambda: page.run("return window.failures") >= 8, "no attempts")
    page.run("window.broken = false; document.dispatchEvent(new Event('visibilitychange'))")
    page.wait_online(SOON_SECONDS)
    page.wait_for_messages(["queued"], SOON_SECONDS)


def test_the_page_continues_after_the_back_button(
    daemon: Daemon, create_account: CreateAccount, open_page: OpenPage
) -> None:
    ann, bob = create_account("ann"), create_account("bob")
    page = open_page(ann)
    page.start_conversation(bob.name)
    page.driver.get(f"{daemon.url}/api/v1/docs/")
    bob.send(ann, "meanwhile")
    page.driver.back()
    page.wait_for_messages(["meanwhile"])
    bob.send(ann, "and now")
    page.wait_for_messages(["meanwhile", "and now"])


def test_nothing_is_lost_or_sent_twice_on_a_bad_network(
    create_account: CreateAccount, open_page: OpenPage
) -> None:
    ann, bob = create_account("ann"), create_account("bob")
    page = open_page(ann)
    page.start_conversation(bob.name)
    texts = numbered(range(examples(6, deep=12)))
    for number, text in enumerate(texts):
        page.send(text)
        page.set_offline(number % 3 == 0)
    page.set_offline(False)
    page.wait_for_messages(texts)
    assert ann.conversation(bob) == texts
    page.driver.refresh()
    page.wait_for_messages(texts)
    page.assert_no_errors()


def test_the_page_catches_up_with_a_restarted_server(
    daemon: Daemon, create_account: CreateAccount, open_page: OpenPage
) -> None:
    ann, bob = create_account("ann"), create_account("bob")
    page = open_page(ann)
    page.run("Math.random = () => 0.1")
    page.start_conversation(bob.name)
    page.send("before")
    page.wait_for_messages(["before"])

    assert daemon.stop() == 0
    page.wait_offline()
    assert page.find("#status").text == "Offline, trying again"
    page.send("written while it was away")
    assert page.texts("#messages .pending .details") == ["Sending …"]

    daemon.start()
    bob.send(ann, "and then")
    page.wait_online()
    page.until(lambda: len(page.messages) == 3 and not page.pending, "not caught up")
    assert page.messages[0] == "before"
    assert set(page.messages[1:]) == {"written while it was away", "and then"}
    page.driver.refresh()
    page.wait_for_messages(ann.conversation(bob))
    assert len(page.messages) == 3
    page.assert_no_errors()


def test_unsent_messages_survive_a_reload(
    create_account: CreateAccount, open_page: OpenPage
) -> None:
    ann, bob = create_account("ann"), create_account("bob")
    page = open_page(ann)
    page.start_conversation(bob.name)
    page.devtools("Network.enable", {})
    page.devtools("Network.setBlockedURLs", {"urls": ["*/api/v1/chats/"]})
    # It takes effect somewhat later than the command returns.
    is_blocked = "return fetch('/api/v1/chats/').then(() => false, () => true)"
    page.until(lambda: page.run(is_blocked), "not blocked")
    page.send("unsent")
    page.until(lambda: page.pending == ["unsent"], "not queued")
    # As version 1 stored unsent messages.
    page.run(
        "localStorage.setItem(`chatd.outbox.${arguments[0]}`, arguments[1])",
        ann.id,
        json.dumps([{"key": "k", "to": bob.id, "text": "older", "at": "2026-01-01T00:00:00.000Z"}]),
    )
    page.driver.refresh()
    page.until(lambda: page.pending == ["older", "unsent"], "not queued in order")
    # Not before the reload: the page would send what it has without reading the storage again.
    page.devtools("Network.setBlockedURLs", {"urls": []})
    page.run("window.dispatchEvent(new Event('online'))")
    page.wait_for_messages(["older", "unsent"])


def test_windows_do_not_lose_each_others_unsent_messages(
    create_account: CreateAccount, open_page: OpenPage
) -> None:
    ann, bob = create_account("ann"), create_account("bob")
    page = open_page(ann)
    page.start_conversation(bob.name)
    first = page.driver.current_window_handle
    page.driver.switch_to.new_window("tab")
    page.load()
    page.start_conversation(bob.name)
    page.set_offline(True)
    page.send("from the second window")
    second = page.driver.current_window_handle
    page.driver.switch_to.window(first)
    page.set_offline(True)
    page.send("from the first window")
    page.until(lambda: len(page.pending) == 1, "not queued")
    page.driver.switch_to.window(second)
    page.driver.close()
    page.driver.switch_to.window(first)
    page.set_offline(False)
    page.driver.refresh()
    page.until(lambda: len(page.messages) == 2 and not page.pending, "a message is lost")
    texts = ["from the first window", "from the second window"]
    assert sorted(ann.conversation(bob)) == texts
