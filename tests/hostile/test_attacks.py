"""Two of the attacks for a moment: the harness works, and memory stays bounded."""

from __future__ import annotations

from pathlib import Path

from tests.hostile.attacker import ATTACKS
from tests.hostile.trial import trial


def test_answers_that_nobody_reads_and_floods_of_requests_harm_nobody(tmp_path: Path) -> None:
    with trial(tmp_path, ATTACKS["unread_pages"]._replace(accounts=1)) as attacked:
        for name in ("unread_pages", "pipelined_404"):
            result = attacked.run(name, 0.5)
            assert result.is_harmless, result
