"""The servers that are measured: chatd, the stock server, and peers where installed."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bench.bosh import PASSWORD, Bosh
from bench.chat_api import ChatAPI
from bench.fixtures import Population
from bench.nchan import Nchan
from bench.processes import Cores, ServerProcess, free_port
from bench.protocols import Dialect

PEERS = Path(__file__).parent / "peers"
NCHAN_MODULES = (
    "/usr/share/nginx/modules/ngx_nchan_module.so",
    "/usr/lib/nginx/modules/ngx_nchan_module.so",
)
SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin"
"""Daemons may lie where a user's shell does not look."""
PAGE_BYTES = 1100
"""What a page of chatd has, roughly."""
MOST_POLLS = 30_000


@dataclass
class Server:
    """A running server and how it is spoken to."""

    name: str
    process: ServerProcess
    speak: Callable[[], Dialect]
    """A dialect for one run, which meets nothing that an earlier run has left."""


def chatd(cores: Cores, folder: Path, db: str, population: Population, workers: int = 1) -> Server:
    """The daemon, everything on but the rate limits; several workers get all cores."""
    port = free_port()
    command = [
        *(str(Path(sys.executable).with_name("twistd")), "--nodaemon", "--pidfile=", "chatd"),
        *("--listen", f"tcp:{port}:interface=127.0.0.1:backlog=4096", "--db", db),
        *("--rate-limits", "off", "--max-polls", str(MOST_POLLS)),
    ]
    if workers > 1:
        command += ["--workers", str(workers)]
    else:
        command = cores.pinned(command)
    address = ("127.0.0.1", port)
    process = ServerProcess(command, address, folder)
    return Server("chatd", process, lambda: ChatAPI(address, population))


def stock(cores: Cores, folder: Path, db: str, population: Population) -> Server:
    """The same API on stock twisted.web and Klein."""
    port = free_port()
    command = [sys.executable, "-m", "bench.stock", "--db", db, "--port", str(port)]
    address = ("127.0.0.1", port)
    root = {"PYTHONPATH": str(Path(__file__).resolve().parent.parent)}
    process = ServerProcess(cores.pinned(command), address, folder, root)
    return Server("stock", process, lambda: ChatAPI(address, population))


def nchan(cores: Cores, folder: Path) -> Server | None:
    """nginx with nchan; None where it is not installed."""
    module = next((path for path in NCHAN_MODULES if Path(path).exists()), None)
    nginx = shutil.which("nginx", path=SYSTEM_PATH)
    if nginx is None or module is None:
        return None
    port = free_port()
    config = _configure("nchan.conf", folder, port, MODULE=module, PAGE="x" * PAGE_BYTES)
    address = ("127.0.0.1", port)
    command = [nginx, "-p", str(folder), "-c", str(config)]
    process = ServerProcess(cores.pinned(command), address, folder)
    return Server("nchan", process, lambda: Nchan(address))


def prosody(cores: Cores, folder: Path, users: int, senders: int) -> Server | None:
    """Prosody; None where it is not installed."""
    program = shutil.which("prosody", path=SYSTEM_PATH)
    if program is None:
        return None
    port = free_port()
    config = _configure("prosody.cfg.lua", folder, port)
    accounts = folder / "localhost" / "accounts"
    accounts.mkdir(parents=True)
    for name in [f"u{n}" for n in range(users)] + [f"s{n}" for n in range(senders)]:
        (accounts / f"{name}.dat").write_text(f'return {{ ["password"] = "{PASSWORD}"; }};\n')
    address = ("127.0.0.1", port)
    command = [program, "-F", "--config", str(config)]
    process = ServerProcess(cores.pinned(command), address, folder)
    return Server("prosody", process, lambda: Bosh(address))


def _configure(name: str, folder: Path, port: int, **values: str) -> Path:
    """Fill in a configuration of `PEERS`."""
    text = (PEERS / name).read_text("utf-8")
    for key, value in {"FOLDER": str(folder), "PORT": str(port), **values}.items():
        text = text.replace(f"@{key}@", value)
    path = folder / name
    path.write_text(text, "utf-8")
    return path
