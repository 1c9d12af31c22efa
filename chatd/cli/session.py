"""The saved login: a token in a file that only its owner can read."""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import msgspec
from msgspec import Struct

from chatd.cli.errors import CommandError
from chatd.cli.parser import DEFAULT_SERVER
from chatd.client import ChatClient

RETRY_SECONDS: Final = 10.0
"""How long a command retries before it reports an error."""


class SavedLogin(Struct, frozen=True):
    """A login as it is saved."""

    server: str
    username: str
    user_id: int
    token: str


class SessionFile:
    """The file with the saved login, by default in the user's configuration directory."""

    def __init__(self, path: Path | None = None) -> None:
        if path is None:
            base = os.environ.get("XDG_CONFIG_HOME") or "~/.config"
            path = Path(base).expanduser() / "chatd" / "session.json"
        self.path = path

    def load(self) -> SavedLogin | None:
        """The saved login, None without one; raises `CommandError` if others can read the file."""
        try:
            with self.path.open("rb") as file:
                if os.fstat(file.fileno()).st_mode & 0o077:
                    raise CommandError(
                        f"other users can read {self.path}: chmod 600, or log in again"
                    )
                return msgspec.json.decode(file.read(), type=SavedLogin)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise CommandError(f"cannot read {self.path}: {error.strerror}") from None
        except msgspec.DecodeError:
            raise CommandError(f"{self.path} is not a saved login: log in again") from None

    def save(self, login: SavedLogin) -> None:
        """Save a login; the file is replaced atomically and never readable by others."""
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            # mkstemp creates files with mode 600.
            descriptor, name = tempfile.mkstemp(dir=self.path.parent, prefix=".session-")
            try:
                with os.fdopen(descriptor, "wb") as file:
                    file.write(msgspec.json.encode(login))
                os.replace(name, self.path)
            except BaseException:
                os.unlink(name)
                raise
        except OSError as error:
            raise CommandError(f"cannot write {self.path}: {error.strerror}") from None

    def delete(self) -> None:
        """Delete the saved login."""
        with contextlib.suppress(FileNotFoundError):
            self.path.unlink()


def _is_url(text: str) -> bool:
    try:
        url = urlsplit(text)
        return url.scheme in ("http", "https") and bool(url.hostname) and url.port != 0
    except ValueError:
        # The port is not a number, or out of range.
        return False


class Session:
    """The connection of one run of the command."""

    def __init__(self, reactor: Any, file: SessionFile) -> None:
        self.reactor = reactor
        self.file = file
        self.server = DEFAULT_SERVER
        self._client: ChatClient | None = None

    def connect(self, server: str, token: str | None = None) -> ChatClient:
        """Create a client of `server`."""
        if not _is_url(server):
            raise CommandError(f"{server!r} is not a URL such as {DEFAULT_SERVER}")
        self.server = server
        self._client = ChatClient(
            server,
            token,
            retry_seconds=RETRY_SECONDS,
            wait_for_service=False,
            reactor=self.reactor,
        )
        return self._client

    def logged_in(self) -> tuple[ChatClient, SavedLogin]:
        """A client for the logged-in user; raises `CommandError` without a login."""
        login = self.file.load()
        if login is None:
            raise CommandError("not logged in; run chatd login NAME or chatd register NAME")
        return self.connect(login.server, login.token), login

    async def close(self) -> None:
        """Close the connections."""
        if self._client is not None:
            await self._client.close()
