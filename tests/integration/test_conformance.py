"""`python -m chatd.conformance` against the daemon, and against a server that breaks promises."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.daemon import Daemon, environment


def judge(url: str, *options: str) -> subprocess.CompletedProcess[str]:
    """The finished judgement of a server."""
    return subprocess.run(
        [sys.executable, "-m", "chatd.conformance", url, *options],
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
        timeout=150,
    )


def test_the_daemon_keeps_every_promise(tmp_path: Path) -> None:
    with Daemon(tmp_path) as daemon:
        said = judge(daemon.url)
    assert "BROKEN" not in said.stdout
    assert (said.returncode, said.stderr) == (0, ""), said.stdout + said.stderr
    held = said.stdout.count("\n  holds ")
    assert held > 30
    assert said.stdout.endswith(f"\n{held} of {held} promises hold.\n")


class Liar(BaseHTTPRequestHandler):
    """Answers every request with 200 and the same document."""

    user = b"""{"id": 1, "username": "x", "email": "x@x", "last_seen_at": null,
        "date_joined": "2026-11-22T12:00:00Z", "token": "t", "user_id": 1,
        "created_at": "2026-11-22T12:00:00Z", "seq": 1, "sent_by": 1, "received_by": 1,
        "message": "x", "sent_at": "2026-11-22T12:00:00Z",
        "messages": [], "meta": {"cursor": "1", "count": 0, "more": false, "timed_out": true}}"""

    def do_GET(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(self.user)))
        self.end_headers()
        self.wfile.write(self.user)

    do_POST = do_PUT = do_DELETE = do_HEAD = do_OPTIONS = do_GET

    def log_message(self, *arguments: object) -> None:
        """Log nothing."""


@pytest.fixture
def liar() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Liar) as server:
        serving = threading.Thread(target=server.serve_forever)
        serving.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        serving.join()


def test_a_server_without_the_promised_behaviour_fails(liar: str) -> None:
    said = judge(liar, "--only", "sending")
    assert said.returncode == 1
    assert said.stderr == ""
    assert "  BROKEN  places are 1, 2, 3 ... without gaps" in said.stdout
    assert "  holds" not in said.stdout


def test_promises_can_be_selected(liar: str) -> None:
    said = judge(liar, "--only", "pinned")
    assert "0 of 1 promises hold." in said.stdout
