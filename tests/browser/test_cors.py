"""A browser app of another origin, in a real browser (`--cors-origins`)."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from chatd.api.docs.docs_page import example
from tests.browser.conftest import OpenPage
from tests.browser.pages import Page
from tests.daemon import Daemon

CALLS = """
const done = arguments[arguments.length - 1];
const api = arguments[0] + "/api/v1";
(async () => {
  const JSON_BODY = { "Content-Type": "application/json" };
  const login = await fetch(`${api}/tokens/`, {
    method: "POST", headers: JSON_BODY, body: '{"username": "ann", "password": "zzzzz"}',
  });
  const { token, user_id } = await login.json();
  const headers = { ...JSON_BODY, Authorization: `Bearer ${token}`, "X-Request-ID": "mine" };
  const send = { "Idempotency-Key": "one", ...headers };
  const to = JSON.stringify({ user_id, message: "hai" });
  const told = [];
  for (const [method, path, options, header] of [
    ["POST", "/chats/", { headers: send, body: to }, "X-Request-ID"],
    ["POST", "/chats/", { headers: send, body: to }, "Idempotency-Replayed"],
    ["GET", "/chats/?limit=1", { headers }, "Link"],
    ["GET", "/chats/", { headers: { ...headers, Prefer: "wait=0" } }, "Preference-Applied"],
    ["PATCH", "/chats/", { headers, body: `{"user_id": ${user_id}, "seq": 99, "message": "x"}` }],
    ["PUT", "/conversations/read/", { headers, body: `{"user_id": ${user_id}, "seq": 1}` }],
    ["DELETE", "/tokens/", { headers }],
    ["GET", "/chats/", { headers }, "WWW-Authenticate"],
    ["GET", "/nothing/", { headers }],
    ["POST", "/chats/", { headers: JSON_BODY, body: " ".repeat(2e5) }],
  ]) {
    const response = await fetch(api + path, { method, ...options });
    told.push([response.status, header ? response.headers.get(header) : null]);
  }
  return told;
})().then(done, (error) => done(String(error)));
"""


class _App(BaseHTTPRequestHandler):
    def log_message(self, format: str, *arguments: object) -> None:
        """Log nothing."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.send_header("Content-Length", "15")
        self.end_headers()
        self.wfile.write(b"<!doctype html>")


@pytest.fixture
def app() -> Iterator[int]:
    """The port of a server of an empty page, which is an app without its script."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _App)
    thread = threading.Thread(target=server.serve_forever, args=[0.05])
    thread.start()
    yield server.server_port
    server.shutdown()
    thread.join()
    server.server_close()


def run_example(page: Page, daemon: Daemon) -> object:
    source = example("session.js").replace("http://127.0.0.1:8080", daemon.url)
    return page.driver.execute_async_script(
        "const done = arguments[0];"
        f"(async () => {{ {source}; return [received, streamed] }})()"
        ".then(done, (e) => done(String(e)))"
    )


def test_an_app_of_a_permitted_origin_may_do_everything(
    app: int, tmp_path: Path, open_page: OpenPage
) -> None:
    with Daemon(tmp_path, "--cors-origins", f"http://127.0.0.1:{app}") as daemon:
        page = open_page(url=daemon.url)
        page.driver.set_script_timeout(30)
        # The same server under another name is another origin.
        page.driver.get(f"http://localhost:{app}/")
        assert run_example(page, daemon) == "TypeError: Failed to fetch"

        page.driver.get(f"http://127.0.0.1:{app}/")
        assert run_example(page, daemon) == [["hai", "how are you?"]] * 2
        told = page.driver.execute_async_script(CALLS, daemon.url)
        assert isinstance(told, list), told
        link = told[2][1]
        assert link.startswith("</api/v1/chats/?page=2")
        assert told == [
            [201, "mine"],
            [200, "true"],
            [200, link],
            [200, "wait=0"],
            [404, None],
            [204, None],
            [204, None],
            [401, 'Bearer realm="chatd", error="invalid_token"'],
            [404, None],
            [413, None],
        ]
