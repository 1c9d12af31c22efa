"""The reference of the settings is that of the code."""

from __future__ import annotations

from chatd.config import OPTIONS
from scripts.configuration_reference import TARGET, reference


def test_the_reference_is_up_to_date() -> None:
    text = reference()
    assert text == TARGET.read_text(encoding="utf-8"), "run scripts/configuration_reference.py"
    assert all(f"| `--{option.name}` | `{option.variable}` |" in text for option in OPTIONS)
