"""The page from the view of its user: what is seen, clicked and typed."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import WebDriverWait

from tests.browser.accounts import Account
from tests.daemon import PASSWORD

TIMEOUT_SECONDS = 20
PICTURE = "/web/icon.svg"
ONLINE = {"offline": False, "latency": 0, "downloadThroughput": -1, "uploadThroughput": -1}
FOCUS_EMPTY = """
const field = document.querySelector(arguments[0]);
field.focus();
field.select();
document.execCommand("delete");
"""
ENTER = {"key": "Enter", "code": "Enter", "text": "\r", "windowsVirtualKeyCode": 13}
IS_ONLINE = """
return document.getElementById("chat").checkVisibility()
  && document.getElementById("status").dataset.state === "online";
"""


class Page:
    """chatd's page in one browser."""

    def __init__(self, driver: webdriver.Chrome, url: str) -> None:
        self.driver = driver
        self.url = url

    # The browser

    def emulate(self, width: int, height: int, *, dark: bool = False) -> None:
        """Give the page a size, and the colour scheme that its user prefers."""
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.devtools("Emulation.setDeviceMetricsOverride", size)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.devtools("Emulation.setEmulatedMedia", {"features": [scheme]})

    def devtools(self, command: str, parameters: Mapping[str, object]) -> None:
        """Run a command of the DevTools protocol."""
        self.driver.execute_cdp_cmd(command, dict(parameters))

    def set_offline(self, offline: bool) -> None:
        """Take the network away, or give it back."""
        self.devtools("Network.enable", {})
        self.devtools("Network.emulateNetworkConditions", {**ONLINE, "offline": offline})

    def load(self, account: Account | None = None, path: str = "/") -> None:
        """Open the page, logged in if an account is given, or another path of the service."""
        if account is not None:
            # Any document of the origin gives access to its storage.
            if not self.driver.current_url.startswith(f"{self.url}/"):
                self.driver.get(f"{self.url}{PICTURE}")
            session = {"token": account.token, "user_id": account.id, "username": account.name}
            self.run("localStorage.setItem('chatd.session', arguments[0])", json.dumps(session))
        self.driver.get(f"{self.url}{path}")
        if account is not None:
            self.wait_online()

    def reset(self, origin: str) -> None:
        """Leave nothing to the next test, which uses the server at `origin`."""
        self.set_offline(False)
        self.devtools("Network.setBlockedURLs", {"urls": []})
        # An empty page costs more, because each origin has a process of its own.
        self.driver.get(f"{origin}{PICTURE}")
        self.devtools(
            "Storage.clearDataForOrigin", {"origin": self.url, "storageTypes": "local_storage"}
        )
        self.run("localStorage.clear()")
        self.driver.get_log("browser")  # type: ignore[no-untyped-call]

    def find(self, selector: str) -> WebElement:
        return self.driver.find_element(By.CSS_SELECTOR, selector)

    def texts(self, selector: str) -> list[str]:
        """The texts of elements, in document order."""
        script = "return [...document.querySelectorAll(arguments[0])].map((e) => e.textContent)"
        texts: list[str] = self.driver.execute_script(script, selector)
        return texts

    def run(self, script: str, *arguments: object) -> Any:
        return self.driver.execute_script(script, *arguments)

    def until(
        self, condition: Callable[[], object], failure: str, seconds: float = TIMEOUT_SECONDS
    ) -> None:
        """Wait for a condition; otherwise fail, and show the page's text."""
        wait: WebDriverWait[webdriver.Chrome] = WebDriverWait(
            self.driver, seconds, poll_frequency=0.1
        )
        try:
            wait.until(lambda _: condition())
        except Exception as error:
            raise AssertionError(f"{failure}; page: {self.find('body').text!r}") from error

    # What the user does

    def type(self, selector: str, text: str) -> None:
        """Replace the text of a field, and press Enter if `text` ends with that key.

        The browser is given the text at once, because it takes a third of the time of key after
        key; `press` does that.
        """
        self.run(FOCUS_EMPTY, selector)
        self.devtools("Input.insertText", {"text": text.removesuffix(Keys.ENTER)})
        if text.endswith(Keys.ENTER):
            for kind in ("keyDown", "keyUp"):
                self.devtools("Input.dispatchKeyEvent", {"type": kind, **ENTER})

    def register(self, name: str) -> None:
        self.find("#choose-register").click()
        self.type("#username", name)
        self.type("#email", f"{name}@example.org")
        self.type("#password", PASSWORD)
        self.type("#repeat", PASSWORD + Keys.ENTER)
        self.wait_online()

    def log_in(self, name: str) -> None:
        self.type("#username", name)
        self.type("#password", PASSWORD + Keys.ENTER)
        self.wait_online()

    def log_out(self) -> None:
        self.find("#open-settings").click()
        self.run("document.getElementById('logout').click()")

    def start_conversation(self, name: str) -> None:
        """Enter a username."""
        self.type("#search", name + Keys.ENTER)
        self.until(lambda: self.texts("#peer-name") == [name], f"no conversation with {name}")

    def open_conversation(self, peer: Account) -> None:
        """Click a conversation in the list."""
        selector = f'#conversations button[data-id="{peer.id}"]'
        self.until(lambda: self.texts(selector), f"{peer.name} is not in the list")
        self.run("document.querySelector(arguments[0]).click()", selector)
        self.until(lambda: self.texts("#peer-name") == [peer.name], "not opened")

    def load_older(self) -> None:
        self.run("document.getElementById('load-older').click()")

    def send(self, text: str) -> None:
        self.type("#text", text + Keys.ENTER)

    def press(self, *keys: str) -> None:
        """Press keys wherever the focus is."""
        for key in keys:
            self.driver.switch_to.active_element.send_keys(key)

    def close_conversation(self) -> None:
        self.run("document.getElementById('back').click()")
        self.until(lambda: not self.find("#conversation-open").is_displayed(), "still open")

    def open_settings(self) -> None:
        self.find("#open-settings").click()
        self.until(lambda: self.texts("#sessions li"), "no sessions")

    def close_settings(self) -> None:
        self.find("#close-settings").click()

    # What the user sees

    @property
    def messages(self) -> list[str]:
        """The open conversation, oldest first."""
        return self.texts("#messages .bubble")

    @property
    def pending(self) -> list[str]:
        """Messages of the open conversation that are not sent yet."""
        return self.texts("#messages .pending .bubble")

    @property
    def conversations(self) -> list[str]:
        """The names in the list, the newest conversation first."""
        return self.texts("#conversations .name")

    @property
    def unread(self) -> list[str]:
        """The counts in the list that are shown."""
        return [text for text in self.texts("#conversations .unread") if text]

    @property
    def marks(self) -> list[str | None]:
        """What became of the open conversation's own messages."""
        script = (
            "return [...document.querySelectorAll('#messages .mark')].map((e) => e.dataset.mark)"
        )
        marks: list[str | None] = self.run(script)
        return marks

    @property
    def draft(self) -> str:
        return str(self.find("#text").get_property("value"))

    @property
    def state(self) -> str | None:
        return self.find("#status").get_attribute("data-state")

    def wait_online(self, seconds: float = TIMEOUT_SECONDS) -> None:
        self.until(lambda: self.run(IS_ONLINE), "not online", seconds)

    def wait_offline(self) -> None:
        self.until(lambda: self.state == "offline", "still online")

    def wait_for_messages(self, messages: Sequence[str], seconds: float = TIMEOUT_SECONDS) -> None:
        """Wait until the open conversation is exactly these messages, all of them sent."""
        expected = list(messages)
        self.until(
            lambda: self.messages == expected and not self.pending,
            f"the conversation is not {expected}",
            seconds,
        )

    def wait_for_marks(self, *marks: str | None) -> None:
        """Wait until this has become of the open conversation's own messages."""
        self.until(lambda: self.marks == list(marks), f"not marked as {marks}")

    def wait_for_unread(self, *counts: str) -> None:
        """Wait until these counts are in the list."""
        self.until(lambda: self.unread == list(counts), f"the counts are not {counts}")

    def wait_for_text(self, selector: str, text: str) -> None:
        """Wait until the only element that a selector finds has this text."""
        self.until(lambda: self.texts(selector) == [text], f"{selector} is not {text!r}")

    def assert_no_errors(self) -> None:
        """The console has no errors, except of requests that failed or were refused."""
        entries = self.driver.get_log("browser")  # type: ignore[no-untyped-call]
        wrong = [each["message"] for each in entries if each.get("source") != "network"]
        assert not wrong, wrong
