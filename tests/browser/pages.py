"""The page as a person uses it: what is seen, clicked and typed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import WebDriverWait

PATIENCE_SECONDS = 20


class Page:
    """chatd's page in one browser."""

    def __init__(self, driver: webdriver.Chrome, url: str) -> None:
        self.driver = driver
        self.url = url

    def look(self, width: int, height: int, dark: bool) -> None:
        """Give the page a size, and the colours that its reader prefers."""
        tell = self.driver.execute_cdp_cmd
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        tell("Emulation.setDeviceMetricsOverride", size)
        colours = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        tell("Emulation.setEmulatedMedia", {"features": [colours]})

    def load(self) -> None:
        self.driver.get(self.url)

    def find(self, selector: str) -> WebElement:
        return self.driver.find_element(By.CSS_SELECTOR, selector)

    def texts(self, selector: str) -> list[str]:
        """What elements say, in the order of the page."""
        script = "return [...document.querySelectorAll(arguments[0])].map((e) => e.textContent)"
        texts: list[str] = self.driver.execute_script(script, selector)
        return texts

    def run(self, script: str, *arguments: object) -> Any:
        return self.driver.execute_script(script, *arguments)

    def until(self, condition: Callable[[], object], what: str) -> None:
        """Wait for something; fails with `what` did not come, and what is seen instead."""
        waiting: WebDriverWait[webdriver.Chrome] = WebDriverWait(
            self.driver, PATIENCE_SECONDS, poll_frequency=0.05
        )
        waiting.until(lambda _: condition(), f"{what}; seen: {self.find('body').text!r}")

    # Doing

    def type(self, selector: str, text: str) -> None:
        field = self.find(selector)
        field.clear()
        field.send_keys(text)

    def register(self, name: str, password: str = "secret") -> None:
        self.find("#choose-register").click()
        self.type("#username", name)
        self.type("#email", f"{name}@example.org")
        self.type("#password", password + Keys.ENTER)
        self.is_online()

    def log_in(self, name: str, password: str = "secret") -> None:
        self.type("#username", name)
        self.type("#password", password + Keys.ENTER)
        self.is_online()

    def write_to(self, name: str) -> None:
        self.type("#find", name + Keys.ENTER)
        self.until(lambda: self.texts("#peer-name") == [name], f"no conversation with {name}")

    def say(self, text: str) -> None:
        self.type("#text", text + Keys.ENTER)

    # Seeing

    @property
    def said(self) -> list[str]:
        """The open conversation, oldest first."""
        return self.texts("#messages .bubble")

    def has_said(self, count: int) -> bool:
        return len(self.said) == count

    @property
    def people(self) -> list[str]:
        return self.texts("#people .name")

    @property
    def state(self) -> str | None:
        return self.find("#status").get_attribute("data-state")

    def is_online(self) -> None:
        self.until(
            lambda: self.find("#chat").is_displayed() and self.state == "online", "not online"
        )

    def is_offline(self) -> None:
        self.until(lambda: self.state == "offline", "still online")

    def sees(self, *messages: str) -> None:
        """The open conversation holds exactly these, all of them sent."""
        wanted = list(messages)
        self.until(
            lambda: self.said == wanted and not self.texts("#messages .waiting"),
            f"not the conversation {wanted}",
        )

    def logs_nothing_bad(self) -> None:
        """The console holds no error but those of a server that is away or says no."""
        entries = self.driver.get_log("browser")  # type: ignore[no-untyped-call]
        bad = [entry["message"] for entry in entries if entry.get("source") != "network"]
        assert bad == []
