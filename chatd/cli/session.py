"""Who is logged in: a token kept in a file that only its owner can read."""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import msgspec
from msgspec import Struct

from chatd.cli.errors import Trouble
from chatd.client import ChatClient

DEFAULT_SERVER: Final = "http://127.0.0.1:8080"
PATIENCE_SECONDS: Final = 10.0
"""How long a command at a terminal tries before it says that it does not work."""


class LogIn(Struct, frozen=True):
    """What is kept of a log-in."""

    server: str
    username: str
    user_id: int
    token: str


class SessionFile:
    """The file that a log-in is kept in; by default in the user's folder for configuration."""

    def __init__(self, path: Path | None = None) -> None:
        if path is None:
            base = os.environ.get("XDG_CONFIG_HOME") or "~/.config"
            path = Path(base).expanduser() / "chatd" / "session.json"
        self.path = path

    def read(self) -> LogIn | None:
        """The log-in, None if there is none; raises `Trouble` if others could read it."""
        try:
            with self.path.open("rb") as file:
                if os.fstat(file.fileno()).st_mode & 0o077:
                    raise Trouble(f"others can read {self.path}: chmod 600, or log in again")
                return msgspec.json.decode(file.read(), type=LogIn)
        except FileNotFoundError:
            return None
        except OSError as problem:
            raise Trouble(f"cannot read {self.path}: {problem.strerror}") from None
        except msgspec.DecodeError:
            raise Trouble(f"{self.path} holds no log-in: log in again") from None

    def write(self, log_in: LogIn) -> None:
        """Keep a log-in; the file is replaced as a whole and never readable by others."""
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            # mkstemp makes files of mode 600.
            descriptor, name = tempfile.mkstemp(dir=self.path.parent, prefix=".session-")
            try:
                with os.fdopen(descriptor, "wb") as file:
                    file.write(msgspec.json.encode(log_in))
                os.replace(name, self.path)
            except BaseException:
                os.unlink(name)
                raise
        except OSError as problem:
            raise Trouble(f"cannot write {self.path}: {problem.strerror}") from None

    def remove(self) -> None:
        """Forget the log-in."""
        with contextlib.suppress(FileNotFoundError):
            self.path.unlink()


def _is_url(text: str) -> bool:
    try:
        url = urlsplit(text)
        return url.scheme in ("http", "https") and bool(url.hostname) and url.port != 0
    except ValueError:
        # The port is not a number, or too large.
        return False


class Session:
    """The client of one run of the command."""

    def __init__(self, reactor: Any, file: SessionFile) -> None:
        self.reactor = reactor
        self.file = file
        self.server = DEFAULT_SERVER
        self._client: ChatClient | None = None

    def connect(self, server: str, token: str | None = None) -> ChatClient:
        """A client of that server."""
        if not _is_url(server):
            raise Trouble(f"{server!r} is not a URL such as {DEFAULT_SERVER}")
        self.server = server
        self._client = ChatClient(
            server,
            token,
            patience=PATIENCE_SECONDS,
            wait_for_service=False,
            reactor=self.reactor,
        )
        return self._client

    def logged_in(self) -> tuple[ChatClient, LogIn]:
        """A client for whoever is logged in; raises `Trouble` if nobody is."""
        log_in = self.file.read()
        if log_in is None:
            raise Trouble("nobody is logged in: chatd login NAME, or chatd register NAME")
        return self.connect(log_in.server, log_in.token), log_in

    async def close(self) -> None:
        """Close connections."""
        if self._client is not None:
            await self._client.close()
