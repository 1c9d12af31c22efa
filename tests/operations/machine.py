"""A scratch machine on which the commands of docs/operations.md run, as they stand.

They are given to bash in a copy of what they use of the checkout. `Machine.translate` says what is
changed, in them and in the files that they install; `stand_ins` what is not the real program.
"""

from __future__ import annotations

import os
import random
import re
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Final

from bench.processes import free_port, is_free
from tests.daemon import ROOT, environment, wait_until
from tests.operations.services import Services
from tests.operations.stand_ins import StandIns
from tests.postgres_server import Server, connected, installation, rows

BLOCK_SECONDS: Final = 180
START_SECONDS: Final = 30
COPIED: Final = ("docs/proxies", "packaging")
FOLDERS: Final = (
    *("etc/chatd", "etc/ssl", "etc/systemd/system", "opt", "run", "tmp"),
    *("var/backups", "var/lib/chatd"),
)

PORTS: Final = (8080, 9080, 9090, 443)
INSTANCES: Final = (8081, 8082)
"""Ports of units made from the template, whose admin ports begin with a 1."""


POSTGRES: Final = {"wal_level": "replica", "max_wal_senders": "4"}
"""Settings that are PostgreSQL's defaults, unlike those of the other tests."""


class Machine:
    """The scratch machine; call `close` in the end."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "root"
        self._clone = folder / "clone"
        self._variables = folder / "variables"
        self._ports = {port: free_port() for port in PORTS}
        self._ports |= {port: _instance_port() for port in INSTANCES}
        self._postgres = Server()
        programs = installation().binaries
        self._environment = environment(
            PATH=os.pathsep.join(
                [str(folder / "bin"), str(programs), os.environ["PATH"], "/usr/sbin"]
            ),
            HOME=str(folder),
            XDG_CONFIG_HOME=str(folder / "config"),
            PGHOST=str(self._postgres.folder),
            PGUSER="root",
        )
        for name in FOLDERS:
            (self.root / name).mkdir(parents=True)
        self._copy_sources()
        self._start_postgres()
        self.services = Services(
            self.root, self._ports, self._postgres, POSTGRES, self._environment
        )
        self._stand_ins = StandIns(folder / "bin", self.root, self._environment, self.services)

    def port(self, port: int) -> int:
        """The port that is used instead of one of the page."""
        return self._ports[port]

    def translate(self, text: str) -> str:
        """Change what cannot be as it is on a machine that others use, too.

        Folders are in a scratch root, ports are free ones, and Prometheus does not take minutes.
        """
        ports = {str(port): str(other) for port, other in self._ports.items() if port != 443}
        ports |= {f"1{port}": f"1{self._ports[port]}" for port in INSTANCES}
        text = re.sub(rf"\b({'|'.join(ports)})\b", lambda match: ports[match[0]], text)
        tls = self._ports[443]
        text = text.replace("https://127.0.0.1", f"https://127.0.0.1:{tls}")
        text = text.replace("listen 443 ssl", f"listen 127.0.0.1:{tls} ssl")
        text = text.replace("/var/lib/postgresql/15/main", str(self._postgres.data))
        text = text.replace("/var/lib/postgresql/15", str(self._postgres.folder))
        text = text.replace("/var/lib/postgresql", str(self._postgres.folder))
        text = re.sub(r"(?<![\w./}*])/(?=(?:etc|opt|var|tmp|run)/)", f"{self.root}/", text)
        text = re.sub(r"(interval: )15s", r"\g<1>1s", text)
        return re.sub(r"(?m)^( +for: )1m$", r"\g<1>0s", text)

    def paste(self, text: str) -> str:
        """Run commands, which must succeed; returns what they print."""
        process = self._begin(text)
        try:
            output, _ = process.communicate(timeout=BLOCK_SECONDS)
        finally:
            process.kill()
            process.wait()
        assert process.returncode == 0, f"{text}\n{output}\n{self.services.logs()}"
        return output

    def paste_daemon(self, text: str) -> None:
        """Run a command that ends when its daemon is told to."""
        process = self._begin(text)
        try:
            daemon = wait_until(self._stand_ins.foreground, START_SECONDS)
            url = f"http://127.0.0.1:{self._ports[8080]}"
            ready = f"until curl --fail --silent {url}/readyz; do sleep 0.1; done"
            assert self.paste(ready)
            daemon.send_signal(signal.SIGTERM)
            output, _ = process.communicate(timeout=START_SECONDS)
            assert process.returncode == 0, output
        finally:
            process.kill()
            process.wait()

    def _begin(self, text: str) -> subprocess.Popen[str]:
        names = self._variables
        # What one block sets is there in the next, as in the shell of a reader.
        script = f"[ ! -f {names} ] || . {names}\nset -a\n{self.translate(text)}\n"
        return subprocess.Popen(
            ["bash", "-euo", "pipefail", "-c", f"{script}\ndeclare -px >{names}\n"],
            cwd=self._clone,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def close(self) -> None:
        """Stop everything."""
        self._stand_ins.close()
        self.services.close()
        self._postgres.destroy()

    def _copy_sources(self) -> None:
        for name in COPIED:
            shutil.copytree(ROOT / name, self._clone / name)
        for path in self._clone.rglob("*"):
            if path.is_file():
                path.write_text(self.translate(path.read_text()))

    def _start_postgres(self) -> None:
        self._postgres.start(**POSTGRES)
        # As on Debian: the only role is postgres, which is the superuser.
        with connected(self._postgres.url()) as db:
            rows(db, "CREATE ROLE renaming SUPERUSER LOGIN")
        with connected(self._postgres.url().replace("chatd@", "renaming@")) as db:
            rows(db, "ALTER ROLE chatd RENAME TO postgres")


def _instance_port() -> int:
    """A free port of four digits that is free with a 1 before it, too."""
    while True:
        port = random.randrange(2000, 9000)
        if is_free(port) and is_free(10_000 + port):
            return port
