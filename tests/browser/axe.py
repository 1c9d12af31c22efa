"""Faults of accessibility that axe-core finds on a page."""

from __future__ import annotations

import sys
from functools import cache
from pathlib import Path
from typing import Final

import pytest

from tests.browser.pages import Page

_SCRIPT: Final = Path(sys.prefix, "axe", "axe_playwright_python", "axe.min.js")

_RUN: Final = """
const done = arguments[0];
axe.run({ resultTypes: ["violations"] }).then(
  ({ violations }) => done(violations.flatMap(({ id, nodes }) =>
    nodes.map(({ html, failureSummary }) => `${id}: ${html}: ${failureSummary}`))),
  (error) => done([String(error)]));
"""


@cache
def _script() -> str:
    if not _SCRIPT.exists():
        pytest.fail("axe-core is installed by scripts/test --browser", pytrace=False)
    return _SCRIPT.read_text("utf-8")


def axe_violations(page: Page) -> list[str]:
    """What violates a rule of axe-core, with its default rules, in the present view."""
    if page.run("return window.axe === undefined"):
        page.run(_script())
    page.driver.set_script_timeout(60)
    violations: list[str] = page.driver.execute_async_script(_RUN)
    return violations
