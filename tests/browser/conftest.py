"""Real browsers before a real daemon. Run apart from the other tests, without a reactor."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service

from bench.processes import free_port
from tests.browser.pages import Page
from tests.daemon import ROOT, Daemon

OpenPage = Callable[..., Page]


def program(*names: str) -> str:
    """The path of the first of these programs that is installed."""
    for name in names:
        path = shutil.which(name)
        if path is not None:
            return path
    pytest.fail(
        f"the browser tests need {names[0]}; on Debian: apt-get install chromium chromium-driver",
        pytrace=False,
    )


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    """A running daemon."""
    with Daemon(tmp_path, "--drain-seconds", "1", port=free_port()) as daemon:
        yield daemon


@pytest.fixture
def open_page(daemon: Daemon) -> Iterator[OpenPage]:
    """Opens chatd's page in a browser of its own, with nothing remembered."""
    opened: list[webdriver.Chrome] = []

    def open_one(*, width: int = 1100, height: int = 800, dark: bool = False) -> Page:
        options = webdriver.ChromeOptions()
        options.binary_location = program("chromium", "google-chrome", "chrome")
        for argument in [
            "--headless=new",
            "--disable-dev-shm-usage",
            "--disable-gpu",
            "--force-prefers-reduced-motion",
            "--lang=en-GB",
        ]:
            options.add_argument(argument)
        if os.geteuid() == 0:
            # Chromium refuses its sandbox to root, which tests in containers often are.
            options.add_argument("--no-sandbox")
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        driver = webdriver.Chrome(
            options=options, service=Service(program("chromedriver", "chromium-driver"))
        )
        opened.append(driver)
        page = Page(driver, daemon.url)
        page.look(width, height, dark)
        page.load()
        return page

    yield open_one
    for driver in opened:
        driver.quit()


@pytest.fixture
def picture(tmp_path: Path) -> Callable[[Page, str], None]:
    """Takes a picture for the documents.

    Those that are there stay as they are, or each run of the tests would change them;
    CHATD_PICTURES=1 takes them anew.
    """

    def take(page: Page, name: str) -> None:
        target = ROOT / "docs" / "images" / name
        if target.exists() and not os.environ.get("CHATD_PICTURES"):
            target = tmp_path / name
        target.parent.mkdir(parents=True, exist_ok=True)
        assert page.driver.save_screenshot(str(target))
        assert target.stat().st_size > 5000

    return take
