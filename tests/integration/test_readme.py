"""The curl session of the README."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

from tests.daemon import ROOT, Daemon, environment

ADDRESS = "http://127.0.0.1:8080"


def session() -> str:
    """The commands in the section "A session with curl"."""
    readme = (ROOT / "README.md").read_text()
    [_, section] = re.split(r"^## A session with curl$", readme, flags=re.MULTILINE)
    match = re.search(r"^```bash\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)
    assert match is not None
    assert ADDRESS in match[1]
    return match[1]


def documents(text: str) -> list[Any]:
    """Parse concatenated JSON documents."""
    found, at, decoder = [], 0, json.JSONDecoder()
    while at < len(text):
        document, at = decoder.raw_decode(text, at)
        found.append(document)
        while at < len(text) and text[at].isspace():
            at += 1
    return found


def test_the_session_works_when_pasted(tmp_path: Path) -> None:
    with Daemon(tmp_path) as daemon:
        done = subprocess.run(
            ["bash", "-c", session().replace(ADDRESS, daemon.url)],
            cwd=tmp_path,
            env=environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=40,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, "")
        ann, bob, *rest, page = documents(done.stdout.strip())
        assert (ann["id"], ann["username"]) == (1, "ann")
        assert (bob["id"], bob["username"]) == (2, "bob")
        # Which of the two comes first is up to curl.
        [sent] = [document for document in rest if "seq" in document]
        [poll] = [document for document in rest if "meta" in document]
        assert (sent["sent_by"], sent["received_by"], sent["message"]) == (2, 1, "hai")
        assert poll["messages"] == page["messages"] == [sent]
        assert 0 < poll["meta"]["waited"] < 25_000
        assert poll["meta"]["timed_out"] is False
        assert page["meta"]["current_page"] == "1"
