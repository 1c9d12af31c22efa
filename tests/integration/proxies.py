"""nginx and HAProxy with the configurations of the documentation."""

from __future__ import annotations

import os
import shutil
import socket
import ssl
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from bench.processes import free_port
from tests.daemon import ROOT, Client, wait_until
from tests.integration.certificate import write_certificate

CONFIGURATIONS: Final = ROOT / "docs" / "proxies"
POLL_SECONDS: Final = 55
"""The longest poll of the contract."""
LONGEST: Final = "70s"
"""How long the configurations let a connection be silent."""


class Proxy:
    """A running proxy; clients connect to it with TLS."""

    def __init__(self, port: int, context: ssl.SSLContext) -> None:
        self.port = port
        self._context = context

    def client(self, auth: str | None = None, source: str = "127.0.0.1") -> Client:
        """A new client of the proxy."""
        return Client(self.port, auth, tls=self._context, source=source)


@contextmanager
def proxy(
    name: str, folder: Path, backends: Mapping[int, int], longest: str = LONGEST
) -> Iterator[Proxy]:
    """Run the configuration `name` as it stands, but for ports, paths and `longest`.

    `backends` are the ports of the daemons by those in the file.
    """
    port = free_port()
    pem = folder / "proxy.pem"
    write_certificate(pem)
    text = (CONFIGURATIONS / name).read_text()
    changes = {
        "listen 443": f"listen 127.0.0.1:{port}",
        "bind :443": f"bind 127.0.0.1:{port}",
        "/etc/ssl/chatd.pem": str(pem),
        LONGEST: longest,
        **{f"127.0.0.1:{one}": f"127.0.0.1:{other}" for one, other in backends.items()},
    }
    for before, after in changes.items():
        text = text.replace(before, after)
    path = folder / name
    path.write_text(text)
    command = [program("haproxy"), "-f", str(path)]
    if name.startswith("nginx"):
        command = nginx_command(text, folder)
    with (folder / f"{name}.log").open("ab") as log:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        wait_until(lambda: _listens(port, process), 10)
        yield Proxy(port, ssl.create_default_context(cafile=str(pem)))
    finally:
        process.terminate()
        process.wait(10)
        print((folder / f"{name}.log").read_text())


def nginx_command(configuration: str, folder: Path) -> list[str]:
    """How to start nginx with that configuration in the foreground, with its files in a folder."""
    path = folder / "nginx.conf"
    # What Debian configures elsewhere; a worker of another user could not write there.
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    places = "".join(f"    {kind}_temp_path {folder}/{kind};\n" for kind in kinds)
    text = configuration.replace("http {\n", f"http {{\n    access_log off;\n{places}", 1)
    text = text.replace("user www-data;", "user root;" if os.geteuid() == 0 else "")
    path.write_text(text)
    directives = f"daemon off; pid {folder}/nginx.pid; error_log stderr crit;"
    return [program("nginx"), "-e", "stderr", "-c", str(path), "-g", directives]


def program(name: str) -> str:
    """The path of a program of the system."""
    path = shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin")
    assert path is not None, f"on Debian: apt-get install {name}"
    return path


def _listens(port: int, process: subprocess.Popen[bytes]) -> bool:
    assert process.poll() is None, "the proxy has ended"
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
