"""The servers under test: chatd, the stock server, and peers if installed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bench.bosh import PASSWORD, Bosh
from bench.centrifuge import Centrifuge
from bench.chat_api import ChatAPI
from bench.faye import FayePolls, FayeStreams
from bench.fixtures import Fixtures
from bench.nchan import Nchan
from bench.processes import Cores, ServerProcess, free_port
from bench.protocols import ChatProtocol, StreamProtocol
from bench.xmpp import Xmpp

PEERS = Path(__file__).parent / "peers"
BUILT = Path(__file__).parent.parent / "build" / "peers"
GO_LIBRARIES = "/usr/share/gocode"
"""Where Debian's packages of Go libraries put their source."""
NCHAN_MODULES = (
    "/usr/share/nginx/modules/ngx_nchan_module.so",
    "/usr/lib/nginx/modules/ngx_nchan_module.so",
)
SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin"
"""Daemons are often outside a user's PATH."""
PAGE_BYTES = 1100
"""The approximate size of a page of chatd."""
MAX_POLLS = 30_000


@dataclass
class Server:
    """A running server and its protocols."""

    name: str
    process: ServerProcess
    new_protocol: Callable[[], ChatProtocol] | None
    """Creates the protocol for one run, unaffected by earlier runs; None if it has no polls."""
    new_streams: Callable[[], StreamProtocol]
    """The same for streams."""


def chatd(cores: Cores, folder: Path, db: str, fixtures: Fixtures, workers: int = 1) -> Server:
    """Start chatd, everything enabled but rate limits; several workers may use all cores."""
    port = free_port()
    command = [
        *(str(Path(sys.executable).with_name("twistd")), "--nodaemon", "--pidfile=", "chatd"),
        *("--listen", f"tcp:{port}:interface=127.0.0.1:backlog=4096", "--db", db),
        *("--rate-limits", "off", "--max-polls", str(MAX_POLLS)),
    ]
    if workers > 1:
        command += ["--workers", str(workers)]
    else:
        command = cores.pinned(command)
    address = ("127.0.0.1", port)
    process = ServerProcess(command, address, folder)

    def protocol() -> ChatAPI:
        return ChatAPI(address, fixtures)

    return Server("chatd", process, protocol, protocol)


def stock(cores: Cores, folder: Path, db: str, fixtures: Fixtures) -> Server:
    """Start the same API on plain twisted.web and Klein."""
    port = free_port()
    command = [sys.executable, "-m", "bench.stock", "--db", db, "--port", str(port)]
    address = ("127.0.0.1", port)
    root = {"PYTHONPATH": str(Path(__file__).resolve().parent.parent)}
    process = ServerProcess(cores.pinned(command), address, folder, root)

    def protocol() -> ChatAPI:
        return ChatAPI(address, fixtures)

    return Server("stock", process, protocol, protocol)


def nchan(cores: Cores, folder: Path) -> Server | None:
    """Start nginx with nchan; None if it is not installed."""
    module = next((path for path in NCHAN_MODULES if Path(path).exists()), None)
    nginx = shutil.which("nginx", path=SYSTEM_PATH)
    if nginx is None or module is None:
        return None
    port = free_port()
    config = _write_config("nchan.conf", folder, port, MODULE=module, PAGE="x" * PAGE_BYTES)
    address = ("127.0.0.1", port)
    command = [nginx, "-p", str(folder), "-c", str(config)]
    process = ServerProcess(cores.pinned(command), address, folder)

    def protocol() -> Nchan:
        return Nchan(address)

    return Server("nchan", process, protocol, protocol)


def prosody(cores: Cores, folder: Path, users: int, senders: int) -> Server | None:
    """Start Prosody; None if it is not installed."""
    program = shutil.which("prosody", path=SYSTEM_PATH)
    if program is None:
        return None
    port = free_port(2)
    config = _write_config("prosody.cfg.lua", folder, port, TCP_PORT=str(port + 1))
    accounts = folder / "localhost" / "accounts"
    accounts.mkdir(parents=True)
    for name in [f"u{n}" for n in range(users)] + [f"s{n}" for n in range(senders)]:
        (accounts / f"{name}.dat").write_text(f'return {{ ["password"] = "{PASSWORD}"; }};\n')
    address = ("127.0.0.1", port)
    command = [program, "-F", "--config", str(config)]
    process = ServerProcess(cores.pinned(command), address, folder)
    over_tcp = ("127.0.0.1", port + 1)
    return Server("prosody", process, lambda: Bosh(address), lambda: Xmpp(over_tcp))


def faye(cores: Cores, folder: Path) -> Server | None:
    """Start Faye; None if it is not installed in `peers/faye`."""
    node = shutil.which("node")
    if node is None or not (PEERS / "faye" / "node_modules" / "faye").exists():
        return None
    port = free_port()
    address = ("127.0.0.1", port)
    command = [node, str(PEERS / "faye" / "server.js"), str(port)]
    process = ServerProcess(cores.pinned(command), address, folder)
    return Server("faye", process, lambda: FayePolls(address), lambda: FayeStreams(address))


def centrifuge(cores: Cores, folder: Path) -> Server | None:
    """Build and start a server on the library centrifuge; None if it or Go is not installed."""
    go = shutil.which("go")
    library = Path(GO_LIBRARIES, "src/github.com/centrifugal/centrifuge")
    if go is None or not library.exists():
        return None
    program, source = BUILT / "centrifuge", PEERS / "centrifuge" / "main.go"
    if not program.exists() or program.stat().st_mtime < source.stat().st_mtime:
        subprocess.run(
            [go, "build", "-o", program, source],
            env={**os.environ, "GO111MODULE": "off", "GOPATH": GO_LIBRARIES},
            check=True,
            timeout=600,
        )
    port = free_port()
    address = ("127.0.0.1", port)
    # One thread at a time: on one core, more only take turns.
    environment = {"GOMAXPROCS": "1"}
    process = ServerProcess(cores.pinned([str(program), str(port)]), address, folder, environment)
    return Server("centrifuge", process, None, lambda: Centrifuge(address))


def _write_config(name: str, folder: Path, port: int, **values: str) -> Path:
    """Write a configuration file from its template in `PEERS`."""
    text = (PEERS / name).read_text("utf-8")
    for key, value in {"FOLDER": str(folder), "PORT": str(port), **values}.items():
        text = text.replace(f"@{key}@", value)
    path = folder / name
    path.write_text(text, "utf-8")
    return path
