"""Chromium in front of a real daemon. Run apart from the other tests, without a reactor.

One daemon and as many browsers as a test needs at once serve the whole run: each test creates
its accounts, and gets browsers with empty storage.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from itertools import chain, count
from pathlib import Path
from typing import Protocol

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service

from bench.processes import free_port
from tests.browser.accounts import Account
from tests.browser.pages import Page
from tests.daemon import ROOT, Daemon

CreateAccount = Callable[[str], Account]
TakeScreenshot = Callable[[Page, str], None]

PHONE = (390, 844)
WITH_WINDOWS = ("chromium", "google-chrome", "chrome")
FRUGAL = ("/usr/lib/chromium/chromium-headless-shell", *WITH_WINDOWS)
"""The first has no windows, which takes a third less CPU, but its pages are never hidden. Debian's
script of that name does not pass on the signal by which chromedriver ends a browser."""

Browsers = dict[tuple[str, ...], list[webdriver.Chrome]]


class OpenPage(Protocol):
    """Opens chatd's page in a browser with empty storage, logged in as an account if given.

    `url` is that of another daemon than the shared one, or of a proxy, and `path` that of another
    document, for tests that do not need the page. With `hideable` another tab hides the page.
    """

    def __call__(
        self,
        account: Account | None = None,
        *,
        url: str | None = None,
        path: str = "/",
        size: tuple[int, int] = (1100, 800),
        dark: bool = False,
        hideable: bool = False,
    ) -> Page: ...


def _program(*names: str) -> str:
    """The path of the first of these programs that is installed."""
    for name in names:
        path = shutil.which(name)
        if path is not None:
            return path
    pytest.fail(
        f"the browser tests need {os.path.basename(names[0])}; on Debian: "
        "apt-get install chromium chromium-driver",
        pytrace=False,
    )


def _start_browser(programs: tuple[str, ...]) -> webdriver.Chrome:
    options = webdriver.ChromeOptions()
    options.binary_location = _program(*programs)
    for argument in [
        "--headless=new",
        "--disable-dev-shm-usage",
        "--disable-gpu",
        "--force-prefers-reduced-motion",
        "--lang=en-GB",
    ]:
        options.add_argument(argument)
    if os.geteuid() == 0:
        # Chromium refuses to sandbox for root, which tests in containers often are.
        options.add_argument("--no-sandbox")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    service = Service(_program("chromedriver", "chromium-driver"))
    return webdriver.Chrome(options=options, service=service)


@pytest.fixture(scope="session")
def browsers() -> Iterator[Browsers]:
    """Started browsers that no test is using, by program; the last one given back is the first."""
    idle: Browsers = {FRUGAL: [], WITH_WINDOWS: []}
    yield idle
    for driver in chain(*idle.values()):
        driver.quit()


@pytest.fixture(scope="session")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """The daemon that the tests share; one that stops it starts it again."""
    folder = tmp_path_factory.mktemp("daemon")
    options = ["--drain-seconds", "0.1", "--directory", "on"]
    with Daemon(folder, *options, port=free_port()) as daemon:
        yield daemon


@pytest.fixture
def own_daemon(tmp_path: Path) -> Iterator[Daemon]:
    """A daemon without accounts, for the names and numbers that screenshots show.

    Its directory is closed.
    """
    with Daemon(tmp_path) as daemon:
        yield daemon


_numbers = count(1)


@pytest.fixture
def create_account(daemon: Daemon) -> CreateAccount:
    """Registers an account on the shared daemon, under a name that no other test uses."""
    return lambda name: Account.create(daemon, f"{name}{next(_numbers)}")


@pytest.fixture
def open_page(daemon: Daemon, browsers: Browsers) -> Iterator[OpenPage]:
    """Opens pages; the browsers return to the pool when the test ends."""
    pages: list[tuple[Page, list[webdriver.Chrome]]] = []

    def open_one(
        account: Account | None = None,
        *,
        url: str | None = None,
        path: str = "/",
        size: tuple[int, int] = (1100, 800),
        dark: bool = False,
        hideable: bool = False,
    ) -> Page:
        programs = WITH_WINDOWS if hideable else FRUGAL
        idle = browsers[programs]
        page = Page(idle.pop() if idle else _start_browser(programs), url or daemon.url)
        pages.append((page, idle))
        page.emulate(*size, dark=dark)
        page.load(account, path)
        return page

    yield open_one
    for page, idle in reversed(pages):
        page.reset(daemon.url)
        idle.append(page.driver)


@pytest.fixture
def take_screenshot(tmp_path: Path) -> TakeScreenshot:
    """Takes a screenshot for the documentation.

    Existing ones are left alone, because each run would change them;
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
