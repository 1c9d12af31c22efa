"""Real NATS servers for the tests: Debian's `nats-server`, alone or as a cluster.

`scripts/test` installs it on Debian. Tests fail, rather than being skipped, where it is missing.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import time
import urllib.request
from typing import Any, Final

from bench.processes import free_port
from tests.postgres_server import temporary_folder

START_SECONDS: Final = 15.0

_SETTINGS: Final = """
server_name: "{name}"
listen: "127.0.0.1:{port}"
http: "127.0.0.1:{monitor}"
# Much less than by default, so that a slow consumer is cut soon.
max_pending: 1MB
"""
_CLUSTER: Final = """
cluster {{ name: "tests", listen: "127.0.0.1:{route}", routes: [{routes}] }}
"""


class NatsServer:
    """One server, which is not started yet; call `destroy` in the end."""

    def __init__(
        self, name: str, more: str = "", *, route: int = 0, routes: tuple[int, ...] = ()
    ) -> None:
        self.port = free_port()
        self._monitor = free_port()
        self._others = len(routes)
        self._folder = temporary_folder("chatd-nats-")
        self._process: subprocess.Popen[bytes] | None = None
        text = _SETTINGS.format(name=name, port=self.port, monitor=self._monitor)
        if routes:
            addresses = ",".join(f'"nats://127.0.0.1:{port}"' for port in routes)
            text += _CLUSTER.format(route=route, routes=addresses)
        self._settings = self._folder / "nats.conf"
        self._settings.write_text(text + more)

    @property
    def address(self) -> str:
        """Its address in an URL."""
        return f"127.0.0.1:{self.port}"

    def start(self, wait: bool = True) -> None:
        """Start it, and by default wait until it accepts connections and knows the others."""
        assert self._process is None
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [program(), "-c", self._settings], stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        if wait:
            self.wait(self._others)

    def wait(self, others: int) -> None:
        """Wait until it is connected to so many others."""
        assert self._process is not None
        ends = time.monotonic() + START_SECONDS
        while self._process.poll() is None and time.monotonic() < ends:
            with contextlib.suppress(OSError):
                if self.status()["routes"] >= others:
                    return
            time.sleep(0.02)
        raise RuntimeError(f"nats-server does not start:\n{(self._folder / 'log').read_text()}")

    def status(self) -> dict[str, Any]:
        """What it tells of itself."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self._monitor}/varz", timeout=5) as varz:
            found: dict[str, Any] = json.load(varz)
        return found

    def send_signal(self, how: signal.Signals) -> None:
        """Send it a signal."""
        assert self._process is not None
        self._process.send_signal(how)

    def kill(self) -> None:
        """End it at once."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait(START_SECONDS)

    def destroy(self) -> None:
        """Kill it and delete everything."""
        self.kill()
        shutil.rmtree(self._folder, ignore_errors=True)


class NatsCluster:
    """Three servers that know each other."""

    def __init__(self) -> None:
        routes = [free_port() for _ in range(3)]
        self.servers = [
            NatsServer(
                f"s{number}",
                route=port,
                routes=tuple(each for each in routes if each != port),
            )
            for number, port in enumerate(routes)
        ]

    def url(self, *numbers: int) -> str:
        """The value of `--bus` for these servers, or for all."""
        servers = [self.servers[number] for number in numbers] or self.servers
        return f"nats://{','.join(server.address for server in servers)}"

    def start(self) -> None:
        """Start those that do not run, and wait until all know each other."""
        for server in self.servers:
            if server._process is None:
                server.start(wait=False)
        for server in self.servers:
            server.wait(len(self.servers) - 1)

    def destroy(self) -> None:
        """Kill all and delete everything."""
        for server in self.servers:
            server.destroy()


def program() -> str:
    """The path of nats-server; raises `LookupError` if it is not installed."""
    # Debian installs it in a folder that is only on the PATH of root.
    path = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin"])
    if found := shutil.which("nats-server", path=path):
        return found
    raise LookupError("the tests need nats-server: on Debian, apt-get install nats-server")
