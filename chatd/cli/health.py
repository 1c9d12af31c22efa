"""`chatd health`: the check of a container, or of a script that waits for a daemon.

It runs every few seconds, therefore it uses the standard library and does not import Twisted.
"""

from __future__ import annotations

import json
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from typing import Final, NoReturn
from urllib.parse import urlsplit

TIMEOUT_SECONDS: Final = 5.0


def health(url: str, *, ready: bool) -> NoReturn:
    """Exit with 0 if the daemon at `url` responds, else with 1 and one line that says why.

    `ready` also asks whether it should be sent requests. No proxy of the environment is used.
    """
    parts = urlsplit(url)
    try:
        port = parts.port
    except ValueError:
        port = None
        parts = parts._replace(netloc="")
    if parts.scheme not in ("http", "https") or parts.hostname is None:
        raise SystemExit(f"chatd: {url!r} is not http://HOST:PORT or https://HOST:PORT")
    secure = parts.scheme == "https"
    connect = HTTPSConnection if secure else HTTPConnection
    connection = connect(parts.hostname, port, timeout=TIMEOUT_SECONDS)
    try:
        connection.request("GET", "/readyz" if ready else "/healthz")
        response = connection.getresponse()
        body = response.read(65536)
    except (OSError, HTTPException) as error:
        raise SystemExit(f"chatd: {url} does not respond: {error}") from None
    finally:
        connection.close()
    if response.status != 200:
        raise SystemExit(f"chatd: {url}: {response.status} {_reasons(body)}".rstrip())
    raise SystemExit(0)


def _reasons(body: bytes) -> str:
    """Why a daemon is not ready, from the body of its response; empty if that is another one."""
    try:
        return ", ".join(map(str, json.loads(body)["reasons"]))
    except (ValueError, KeyError, TypeError):
        return ""
