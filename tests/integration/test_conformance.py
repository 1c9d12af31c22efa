"""`python -m chatd.conformance`: the daemon passes all checks, a faulty server does not."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.daemon import ROOT, Daemon, environment
from tests.fork_server import completed


def run_checks(url: str, *options: str) -> subprocess.CompletedProcess[str]:
    """Run the command against a server."""
    command = ["-m", "chatd.conformance", url, *options]
    return completed(command, cwd=ROOT, env=environment(), timeout=150)


def test_the_daemon_passes_all_checks(tmp_path: Path) -> None:
    with Daemon(tmp_path) as daemon:
        report = run_checks(daemon.url)
    assert "FAILED" not in report.stdout
    assert "not supported" not in report.stdout
    assert (report.returncode, report.stderr) == (0, ""), report.stdout + report.stderr
    passed = report.stdout.count("\n  passed ")
    assert passed > 30
    assert report.stdout.endswith(f"\n{passed} of {passed} checks passed.\n")


class FaultyHandler(BaseHTTPRequestHandler):
    """Answers every request with 200 and the same body."""

    body = b"""{"id": 1, "username": "x", "email": "x@x", "last_seen_at": null,
        "date_joined": "2026-11-22T12:00:00Z", "token": "t", "user_id": 1,
        "created_at": "2026-11-22T12:00:00Z", "seq": 1, "sent_by": 1, "received_by": 1,
        "message": "x", "sent_at": "2026-11-22T12:00:00Z",
        "messages": [], "meta": {"cursor": "1", "count": 0, "more": false, "timed_out": true}}"""

    def do_GET(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(self.body)))
        self.end_headers()
        self.wfile.write(self.body)

    do_POST = do_PUT = do_PATCH = do_DELETE = do_HEAD = do_OPTIONS = do_GET

    def log_message(self, *arguments: object) -> None:
        """Log nothing."""


@contextmanager
def serving(handler: type[BaseHTTPRequestHandler]) -> Iterator[str]:
    """The URL of a server with this handler."""
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def faulty_server() -> Iterator[str]:
    with serving(FaultyHandler) as url:
        yield url


@pytest.mark.parametrize(
    ("area", "requirement"),
    [
        ("sending", "seqs are 1, 2, 3 ... without gaps"),
        ("streams", "a stream begins at once"),
        ("account and tokens", "wrong labels, ends and scopes are 400"),
        ("edit and delete", "only the sender"),
        ("blocking", "blocks are listed"),
    ],
)
def test_a_faulty_server_fails_checks(faulty_server: str, area: str, requirement: str) -> None:
    report = run_checks(faulty_server, "--only", area)
    assert report.returncode == 1
    assert report.stderr == ""
    assert f"  FAILED  {requirement}" in report.stdout
    assert "  passed" not in report.stdout


class Version1(FaultyHandler):
    """Has none of the calls of version 1.1, and ignores parameters that it does not know."""

    def do_GET(self) -> None:
        if self.path == "/api/v1/tokens/":
            self.refuse(405)
        elif self.path == "/api/v1/blocks/" or "/conversations/" in self.path:
            self.refuse(404)
        else:
            super().do_GET()

    def do_PUT(self) -> None:
        self.refuse(404)

    def do_PATCH(self) -> None:
        self.refuse(405)

    def do_DELETE(self) -> None:
        if "/chats/" in self.path:
            self.refuse(405)
        else:
            super().do_GET()

    def refuse(self, status: int) -> None:
        """Answer with an error."""
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.end_headers()


def test_parts_that_a_server_does_not_have_are_no_failures() -> None:
    with serving(Version1) as url:
        report = run_checks(url, "--only", "version 1.1")
    assert (report.returncode, report.stderr) == (0, "")
    assert "  not supported  a new password ends" in report.stdout
    assert "GET /tokens/ is answered 405" in report.stdout
    assert "PATCH /chats/ is answered 405" in report.stdout
    assert "DELETE /chats/ is answered 405" in report.stdout
    assert "GET /blocks/ is answered 404" in report.stdout
    assert "GET /conversations/ is answered 404" in report.stdout
    assert "the response to changes=true has no changes" in report.stdout
    missing = report.stdout.count("  not supported  ")
    assert missing > 15
    assert (
        f"0 of 0 checks passed, {missing} are of parts that the server does not have."
        in report.stdout
    )


def test_checks_can_be_selected(faulty_server: str) -> None:
    report = run_checks(faulty_server, "--only", "pinned")
    assert "0 of 1 checks passed." in report.stdout
