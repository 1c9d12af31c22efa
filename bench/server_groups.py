"""`ServerGroups`: starts the servers that are measured side by side, and stops them."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from bench import servers
from bench.deliveries import SENDERS
from bench.fixtures import Fixtures, populate
from bench.processes import Cores, StartError
from bench.servers import Server


class ServerGroups:
    """Starts servers in folders of `folder`; reports peers that are missing or do not start."""

    def __init__(
        self,
        folder: Path,
        db: str,
        cores: Cores,
        *,
        workers: int,
        peers: Sequence[str],
        report_error: Callable[[str], None],
        note: Callable[[str], None],
    ) -> None:
        self._folder = folder
        self._db = db
        self._cores = cores
        self._workers = workers
        self._peer_names = peers
        self._report_error = report_error
        self._note = note
        self._folders = 0

    @property
    def postgres(self) -> bool:
        """Whether chatd uses PostgreSQL; the stock server always uses SQLite."""
        return not self._db.startswith("sqlite")

    @contextlib.contextmanager
    def own(self, users: int, messages: Sequence[int]) -> Iterator[list[Server]]:
        """Run chatd and the stock server on databases with the same content."""
        folder = self.new_folder()
        other = self.new_folder()
        stock_db = f"sqlite:{other / 'stock.db'}"
        chatd_db = self._db if self.postgres else f"sqlite:{folder / 'chatd.db'}"

        def filled(db: str, path: Path) -> Fixtures:
            populate(db, path, users=users, senders=2 * SENDERS, messages=messages)
            return Fixtures.load(path)

        fixtures = filled(stock_db, other / "who.json")
        ours = fixtures
        if self.postgres:
            ours = filled(chatd_db, folder / "who.json")
        else:
            shutil.copy(other / "stock.db", folder / "chatd.db")
        with contextlib.ExitStack() as stack:
            stack.callback(shutil.rmtree, folder, ignore_errors=True)
            stack.callback(shutil.rmtree, other, ignore_errors=True)
            running = []
            server = servers.chatd(self._cores, folder, chatd_db, ours, self._workers)
            stack.callback(server.process.stop)
            running.append(server)
            server = servers.stock(self._cores, other, stock_db, fixtures)
            stack.callback(server.process.stop)
            running.append(server)
            yield running

    @contextlib.contextmanager
    def peers(self, names: Sequence[str], accounts: int = 0) -> Iterator[list[Server]]:
        """Run those of these peers that are wanted and installed; `accounts` is for Prosody."""
        start: dict[str, Callable[[Path], Server | None]] = {
            "faye": lambda folder: servers.faye(self._cores, folder),
            "nchan": lambda folder: servers.nchan(self._cores, folder),
            "prosody": lambda folder: servers.prosody(self._cores, folder, accounts, 2 * SENDERS),
            "centrifuge": lambda folder: servers.centrifuge(self._cores, folder),
        }
        with contextlib.ExitStack() as stack:
            running = []
            for name in names:
                if name not in self._peer_names:
                    continue
                folder = self.new_folder()
                stack.callback(shutil.rmtree, folder, ignore_errors=True)
                try:
                    server = start[name](folder)
                except (StartError, subprocess.SubprocessError) as wrong:
                    self._report_error(f"{name}: {wrong}")
                    continue
                if server is None:
                    self._note(f"{name} is not installed: skipped")
                    continue
                stack.callback(server.process.stop)
                running.append(server)
            yield running

    def new_folder(self) -> Path:
        """An empty folder for the data of a server."""
        self._folders += 1
        folder = self._folder / f"{self._folders:03}"
        folder.mkdir()
        return folder
