"""The client library against a real daemon, through a proxy that aborts connections."""

from __future__ import annotations

import random
import re
from pathlib import Path
from typing import Any

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread

from bench.processes import free_port
from chatd.client import ChatClient, FollowTransport
from chatd.client.lines import BUFFER_BYTES
from tests.cutting_proxy import CuttingProxy, proxied
from tests.daemon import ROOT, Daemon, environment
from tests.fork_server import completed
from tests.history import check
from tests.recorded_clients import Account, Recorder

SECONDS = 60.0


def account(daemon: Daemon, name: str) -> tuple[int, str]:
    """Create an account; returns its id and a token."""
    return daemon.register(name), daemon.token(name)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path


@pytest.mark.parametrize("transport", ["poll", "stream"])
@ensureDeferred
async def test_every_message_arrives_once_despite_disconnects_and_restarts(
    folder: Path, transport: FollowTransport
) -> None:
    with Daemon(folder, "--drain-seconds", "1", port=free_port()) as daemon:
        from twisted.internet import reactor

        async with proxied(reactor, daemon.port, random.Random(4)) as proxy:
            await through_cuts(daemon, proxy, transport)


async def through_cuts(daemon: Daemon, proxy: CuttingProxy, transport: FollowTransport) -> None:
    ann_id, anns = await deferToThread(account, daemon, "ann")
    bob_id, bobs = await deferToThread(account, daemon, "bob")
    recorder = Recorder()
    async with ChatClient(proxy.url, anns) as sender, ChatClient(proxy.url, bobs) as receiver:
        ann, bob = Account(sender, ann_id, recorder), Account(receiver, bob_id, recorder)
        reader = bob.follow(receiver.follow("0", transport=transport), "phone")
        proxy.bytes_until_cut = 1500
        for number in range(60):
            sent = await ann.send(bob_id, f"{number}")
            assert sent is not None
            assert sent.message.seq == number + 1
            if number == 20:
                await deferToThread(daemon.stop)
                await deferToThread(daemon.start)
            elif number == 40:
                # Without an orderly shutdown.
                await deferToThread(daemon.kill)
                await deferToThread(daemon.start)
            elif number % 7 == 0:
                proxy.cut()
        await reader.until(60, SECONDS)
        await reader.stop()
        assert proxy.cuts > 20
        proxy.bytes_until_cut = None
        assert await bob.page(counted=True) == 60
        assert check(recorder.events, {bob_id: await bob.inbox()}, ["phone"]) == []


@ensureDeferred
async def test_a_send_does_not_wait_behind_streams_and_held_polls(folder: Path) -> None:
    with Daemon(folder) as daemon:
        ann, anns = await deferToThread(account, daemon, "ann")
        recorder = Recorder()
        async with ChatClient(daemon.url, anns) as client:
            own = Account(client, ann, recorder)
            transports: list[FollowTransport] = ["poll", "stream"]
            readers = [
                own.follow(client.follow("0", transport=transport), f"{transport} {number}")
                for transport in transports
                for number in range(4)
            ]
            await own.send(ann, "hai")
            for reader in readers:
                await reader.until(1, SECONDS)
            for reader in readers:
                await reader.stop()
            names = [reader.name for reader in readers]
            assert check(recorder.events, {ann: await own.inbox()}, names) == []


@ensureDeferred
async def test_a_stream_sends_no_faster_than_its_messages_are_taken(folder: Path) -> None:
    from twisted.internet import reactor

    clock: Any = reactor
    with Daemon(folder) as daemon:
        ann, anns = await deferToThread(account, daemon, "ann")
        async with ChatClient(daemon.url, anns) as client:
            # As JSON, each is six times as long.
            texts = [f"{number:02}" + "\x01" * 10_000 for number in range(40)]
            for text in texts:
                await client.send(ann, text)
            follow = client.follow("0", transport="stream")
            seen = [(await follow.__anext__()).text]
            lines: Any = follow._streaming._lines  # type: ignore[union-attr]
            ends = clock.seconds() + SECONDS
            while not lines._paused:
                assert clock.seconds() < ends
                await deferLater(clock, 0.01)
            while len(seen) < len(texts):
                # What one receive may bring, beyond the limit.
                assert len(lines._buffer) < BUFFER_BYTES + 2 * 65_536
                seen.append((await follow.__anext__()).text)
            assert seen == texts


def programs() -> list[str]:
    """The complete programs in the documentation of the client."""
    text = (ROOT / "docs" / "client.md").read_text("utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    return [block for block in blocks if "task.react" in block]


@ensureDeferred
async def test_the_programs_in_the_documentation_run(folder: Path) -> None:
    with Daemon(folder) as daemon:
        printed = ("hai", "hai", "nightly report", "A note to myself", "read by bob")
        for number, (program, expected) in enumerate(zip(programs(), printed, strict=True)):
            assert "http://127.0.0.1:8080" in program
            path = folder / f"program{number}.py"
            strict = "__import__('warnings').simplefilter('error')\n"
            path.write_text(strict + program.replace("http://127.0.0.1:8080", daemon.url))
            done = await deferToThread(completed, [path.name], cwd=folder, env=environment())
            assert done.returncode == 0, done.stdout + done.stderr
            assert expected in done.stdout
