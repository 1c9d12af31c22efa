"""chatd behind real proxies, configured as the documentation says."""

from __future__ import annotations

import json
import re
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from bench.processes import free_port
from tests.daemon import CHATS, USERS, Daemon, basic, wait_until
from tests.integration.proxies import CONFIGURATIONS, LONGEST, POLL_SECONDS, Proxy, proxy
from tests.integration.steady_load import SteadyLoad
from tests.postgres_server import Databases

PROXIES = sorted(path.name for path in CONFIGURATIONS.iterdir())
HEADER = ("nginx.conf", "haproxy.cfg")
SILENT_SECONDS = 3
"""How long these polls are silent, instead of 55 seconds."""
CLIENT = "127.0.0.2"


def test_the_proxies_wait_longer_than_a_poll() -> None:
    assert PROXIES == ["haproxy-proxy-protocol.cfg", "haproxy.cfg", "nginx.conf"]
    for name in PROXIES:
        assert LONGEST in (CONFIGURATIONS / name).read_text()
    assert int(LONGEST.removesuffix("s")) >= POLL_SECONDS + 15


@contextmanager
def behind(name: str, folder: Path) -> Iterator[tuple[Daemon, Proxy]]:
    """A daemon behind a proxy that closes what is silent a second longer than polls here."""
    port = free_port()
    if name == "haproxy-proxy-protocol.cfg":
        options = ["--listen", f"haproxy:tcp:{port}:interface=127.0.0.1"]
    else:
        options = ["--listen", f"tcp:{port}:interface=127.0.0.1"]
        options += ["--trusted-proxies", "127.0.0.1/32"]
    options += ["--admin=tcp:0:interface=127.0.0.1", "--access-log=on", "--log-format=json"]
    with Daemon(folder, *options) as daemon:
        backends = {8081: port, 8082: port}
        with proxy(name, folder, backends, longest=f"{SILENT_SECONDS + 1}s") as front:
            yield daemon, front


@pytest.mark.parametrize("name", PROXIES)
def test_polls_streams_and_addresses_pass(tmp_path: Path, name: str) -> None:
    with behind(name, tmp_path) as (daemon, front):
        client = front.client(source=CLIENT)
        body = {"username": "ann", "email": "ann@example.org", "password": "secret"}
        wait_until(lambda: client.get("/readyz").status == 200, 10)
        ann = client.request("POST", USERS, body).json["id"]
        client.close()

        reader, writer = front.client(basic("ann"), CLIENT), front.client(basic("ann"))
        began = time.monotonic()
        reader.send("GET", f"{CHATS}?since=0&wait={SILENT_SECONDS}")
        response = reader.receive()
        assert response.json["meta"]["timed_out"]
        assert time.monotonic() - began >= SILENT_SECONDS

        reader.send("GET", f"{CHATS}?since=0&wait=30")
        wait_until(lambda: daemon.polls_held() == 1, 10)
        message = {"user_id": ann, "message": "hai"}
        assert writer.request("POST", CHATS, message).status == 201
        assert [each["message"] for each in reader.receive().json["messages"]] == ["hai"]

        stream = reader.stream(f"{CHATS}?since=0", {"Accept": "application/x-ndjson"})
        assert next(stream).get("message", {}).get("message", "hai") == "hai"
        wait_until(lambda: daemon.polls_held() == 1, 10)
        assert writer.request("POST", CHATS, {**message, "message": "bye"}).status == 201
        while (line := next(stream)).get("message", {}).get("message") != "bye":
            assert line
        stream.close()
        reader.close()
        writer.close()

        lines = [json.loads(line) for line in daemon.logged().splitlines()]
        polls = [line for line in lines if line.get("outcome") == "timeout"]
        assert [line["client"] for line in polls] == [CLIENT]
        assert polls[0]["hold_ms"] >= SILENT_SECONDS * 1000 - 100


def restarted(daemon: Daemon) -> None:
    """Stop and start a daemon."""
    daemon.signal(signal.SIGTERM)
    assert daemon.wait() == 0
    daemon.start()
    wait_until(lambda: daemon.request("GET", "/readyz").status == 200, 10)


@pytest.mark.parametrize("name", HEADER)
def test_a_rolling_restart_costs_no_client_an_error(
    tmp_path: Path, postgres: Databases, postgres_database: str, name: str
) -> None:
    options = ["--db", postgres.url(postgres_database)]
    if name == "haproxy.cfg":
        comment = re.search(r"--lame-duck-seconds [0-9]+", (CONFIGURATIONS / name).read_text())
        assert comment is not None
        options += comment[0].split()
    folders = [tmp_path / "a", tmp_path / "b"]
    for folder in folders:
        folder.mkdir()
    with (
        Daemon(folders[0], *options, port=free_port()) as one,
        Daemon(folders[1], *options, port=free_port()) as two,
        proxy(name, tmp_path, {8081: one.port, 8082: two.port}) as front,
    ):
        load = SteadyLoad(front.client)
        with load.running():
            for daemon in (one, two):
                load.wait_for_progress()
                restarted(daemon)
            load.wait_for_progress()
        print(f"{load.sent} sends and {load.polled} polls in a rolling restart behind {name}")
        assert load.errors == []
        assert load.polled
