"""Pastes the path of docs/operations.md on a Debian that is booted: see scripts/check-operations.

systemd is process 1 of namespaces of its own. Nothing of the page is changed or stood in for.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from tests.daemon import ROOT
from tests.documents import Example, examples

FOLDER: Final = ROOT / "build" / "operations"
RELEASE: Final = "bookworm"
PACKAGES: Final = "ca-certificates,dbus,iproute2,procps,systemd-sysv"
PAGE: Final = "docs/operations.md"
AFTER_THE_PATH: Final = "Start"
"""The first section that explains the path, instead of being a part of it."""
OTHER_WAYS: Final = ("pipx", "Container")
"""Sections about other ways to install."""
CLONE: Final = "/opt/chatd"
BLOCK_SECONDS: Final = 900
BOOT_SECONDS: Final = 60

BOOT: Final = r"""
cd "$1"
mount --bind . .
cd "$1"
mount -t proc proc proc
mount -t sysfs -o ro sysfs sys
mount -t cgroup2 cgroup2 sys/fs/cgroup
mount -t tmpfs tmpfs run
mount -t tmpfs tmpfs tmp
mount -t tmpfs -o mode=755 tmpfs dev
for device in null zero full random urandom tty; do
    touch "dev/$device"
    mount --bind "/dev/$device" "dev/$device"
done
mkdir dev/pts dev/shm
mount -t devpts -o newinstance,ptmxmode=0666,mode=620,gid=5 devpts dev/pts
mount -t tmpfs tmpfs dev/shm
ln -s pts/ptmx dev/ptmx
ln -s /proc/self/fd dev/fd
ln -s /proc/self/fd/0 dev/stdin
ln -s /proc/self/fd/1 dev/stdout
ln -s /proc/self/fd/2 dev/stderr
mkdir -p .old
pivot_root . .old
umount --lazy /.old
exec env -i container=other PATH=/usr/sbin:/usr/bin:/sbin:/bin /sbin/init --unit=multi-user.target
"""
"""Makes a folder the root of namespaces, and boots it."""

AFTERWARDS: Final = {
    "both processes are watched": """
until [ "$(curl --silent http://127.0.0.1:9090/api/v1/targets | grep --only-matching \
    '"health":"up"' | wc --lines)" = 2 ]; do sleep 1; done
""",
    "the watchdog replaces a process that hangs": """
mkdir /run/systemd/system/chatd@8082.service.d
printf '[Service]\\nWatchdogSec=4\\n' >/run/systemd/system/chatd@8082.service.d/soon.conf
systemctl daemon-reload
systemctl restart chatd@8082.service
hangs=$(systemctl show --property=MainPID --value chatd@8082.service)
kill -STOP "$hangs"
until [ "$(systemctl show --property=NRestarts --value chatd@8082.service)" = 1 ]; do sleep 1; done
until systemctl --quiet is-active chatd@8082.service; do sleep 1; done
chatd health --ready http://127.0.0.1:8082
""",
    "a reload keeps the process": """
before=$(systemctl show --property=MainPID --value chatd@8081.service)
systemctl reload chatd@8081.service
[ "$(systemctl show --property=MainPID --value chatd@8081.service)" = "$before" ]
chatd health --ready http://127.0.0.1:8081
""",
    "the services are confined": """
systemd-analyze security --no-pager chatd@8081.service | tail --lines=1
""",
}
"""Commands that show what the page says of systemd."""


class Booted:
    """A booted Debian."""

    def __init__(self, init: int) -> None:
        self._init = init

    def command(self, script: str) -> list[str]:
        """How to run a script in it."""
        namespaces = ("--mount", "--pid", "--uts", "--ipc", "--cgroup", "--root", "--wd")
        enter = ["nsenter", f"--target={self._init}", *namespaces]
        return [*enter, "bash", "-euo", "pipefail", "-c", script]

    def run(self, script: str) -> None:
        """Run commands in the clone, which must succeed; what they set is there the next time."""
        names = "/run/variables"
        before = f"cd {CLONE}; [ ! -f {names} ] || . {names}; set -a"
        variables = {
            "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "HOME": os.path.expanduser("~root"),
            "DEBIAN_FRONTEND": "noninteractive",
            **_network_variables(),
        }
        subprocess.run(
            self.command(f"{before}\n{script}\ndeclare -px >{names}\n"),
            env=variables,
            stdin=subprocess.DEVNULL,
            check=True,
            timeout=BLOCK_SECONDS,
        )


def _network_variables() -> Mapping[str, str]:
    """How package indexes are reached from this machine."""
    certificates = {"PIP_CERT": "/etc/ssl/certs/ca-certificates.crt"}
    return certificates | {
        name: value for name, value in os.environ.items() if name.lower().endswith("_proxy")
    }


def path() -> Iterator[Example]:
    """The commands of the path."""
    for block in examples(PAGE):
        if block.section == AFTER_THE_PATH:
            return
        if block.language == "bash" and block.section not in OTHER_WAYS:
            yield block


def make_tree() -> Path:
    """A bare Debian with a clone of what is committed."""
    bare = FOLDER / RELEASE
    if not bare.exists():
        FOLDER.mkdir(parents=True, exist_ok=True)
        unfinished = FOLDER / "unfinished"
        shutil.rmtree(unfinished, ignore_errors=True)
        _run("debootstrap", "--variant=minbase", f"--include={PACKAGES}", RELEASE, str(unfinished))
        unfinished.rename(bare)
    tree = FOLDER / "tree"
    shutil.rmtree(tree, ignore_errors=True)
    _run("cp", "--archive", str(bare), str(tree))
    for name in ("etc/resolv.conf", "etc/ssl/certs/ca-certificates.crt"):
        shutil.copy(f"/{name}", tree / name)
    origin = tree / "opt" / "chatd.git"
    _run("git", "clone", "--quiet", "--bare", "--no-hardlinks", str(ROOT), str(origin))
    _run("git", "clone", "--quiet", str(origin), f"{tree}{CLONE}")
    _run("git", "-C", f"{tree}{CLONE}", "remote", "set-url", "origin", "/opt/chatd.git")
    return tree


@contextmanager
def booted(tree: Path) -> Iterator[Booted]:
    """Boot the tree; everything in it is killed in the end."""
    # systemd wants a control group of its own, in the second version of the hierarchy.
    unified = Path("/sys/fs/cgroup/unified")
    group = (unified if unified.is_dir() else unified.parent) / "chatd-operations"
    group.mkdir(exist_ok=True)
    unshare = subprocess.Popen(
        ["bash", "-euc", 'echo $$ >"$1/cgroup.procs"; shift; exec unshare "$@"', "enter", group,
         "--mount", "--pid", "--fork", "--uts", "--ipc", "--cgroup", "--propagation", "private",
         "bash", "-euc", BOOT, "boot", str(tree)],
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    init = 0
    try:
        children = Path(f"/proc/{unshare.pid}/task/{unshare.pid}/children")
        ends = time.monotonic() + BOOT_SECONDS
        while not init:
            found = children.read_text().split()
            init = int(found[0]) if found else 0
            if time.monotonic() > ends:
                raise TimeoutError("the tree does not boot")
        machine = Booted(init)
        while subprocess.run(
            machine.command("[ -S /run/systemd/private ]"), check=False
        ).returncode:
            if time.monotonic() > ends:
                raise TimeoutError("the tree does not boot")
            time.sleep(0.2)
        yield machine
    finally:
        if init:
            os.kill(init, signal.SIGKILL)
        unshare.wait(BOOT_SECONDS)


def _run(*line: str) -> None:
    subprocess.run(line, check=True)


def main() -> int:
    """Paste the path; returns the exit status."""
    # What has booted does not end by itself.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    with booted(make_tree()) as machine:
        steps = [(block.section, block.text) for block in path()] + list(AFTERWARDS.items())
        for name, script in steps:
            print(f"== {name}\n{script.strip()}\n--", flush=True)
            began = time.monotonic()
            try:
                machine.run(script)
            except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as failure:
                print(f"== failed: {name}: {failure.__class__.__name__}")
                return 1
            print(f"-- {time.monotonic() - began:.0f} s\n", flush=True)
    print("== the path works on a booted Debian")
    return 0


if __name__ == "__main__":
    sys.exit(main())
