"""`chatd demo`: a daemon in a temporary folder, two accounts, a conversation."""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater

from chatd.cli.errors import Trouble
from chatd.cli.printing import line
from chatd.cli.session import Session
from chatd.client import ChatClient, ChatError

START_SECONDS: Final = 20.0
STOP_SECONDS: Final = 15.0
PASSWORD: Final = "demo-password"

CONVERSATION: Final = (
    ("ann", "Hello Bob! This message was durable before I was told that it is sent."),
    ("bob", "And I had it a moment later: my long poll was waiting for it."),
    ("ann", "What if your connection breaks?"),
    ("bob", "Then I ask again with my cursor: every message once, and in order."),
)


async def demo(args: argparse.Namespace, session: Session) -> None:
    """Let Ann and Bob talk, then let the reader talk with Bob in a browser."""
    with tempfile.TemporaryDirectory(prefix="chatd-demo-") as folder:
        async with daemon(Path(folder), session.reactor) as url:
            print(f"A daemon runs on {url} with its data in {folder}.", flush=True)
            ann, bob = ChatClient(url), ChatClient(url)
            async with ann, bob:
                ids = {
                    name: await _join(client, name) for name, client in (("ann", ann), ("bob", bob))
                }
                await _converse({"ann": ann, "bob": bob}, ids)
                if not args.once:
                    print(
                        f"\nOpen {url} and log in as ann with the password {PASSWORD}: "
                        "bob answers.\nCtrl-C ends the demo and deletes its data.",
                        flush=True,
                    )
                    await _answer(bob)


async def _join(client: ChatClient, name: str) -> int:
    user = await client.register(name, f"{name}@example.org", PASSWORD)
    await client.log_in(name, PASSWORD)
    return user.id


async def _converse(clients: dict[str, ChatClient], ids: dict[str, int]) -> None:
    follows = {name: client.follow("0") for name, client in clients.items()}
    for speaker, text in CONVERSATION:
        listener = "bob" if speaker == "ann" else "ann"
        hearing = Deferred.fromCoroutine(follows[listener].__anext__())
        await clients[speaker].send(ids[listener], text)
        print(line(await hearing, speaker), flush=True)


async def _answer(bob: ChatClient) -> None:
    """Say something back to whoever writes to Bob, until interrupted."""
    async for message in bob.follow("now"):
        count = len(message.text.split())
        words = "one word" if count == 1 else f"{count} words"
        await bob.send(message.sent_by, f"I read your {words}, message {message.seq} of my inbox.")


@contextlib.asynccontextmanager
async def daemon(folder: Path, reactor: Any) -> AsyncIterator[str]:
    """A daemon of its own, ready; its URL. It ends with the context."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    listen = f"tcp:{port}:interface=127.0.0.1"
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith("CHATD_")
    }
    with (folder / "chatd.log").open("wb") as log:
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", "chatd.cli", "serve", "--listen", listen),
                *("--db", f"sqlite:{folder / 'chatd.db'}", "--drain-seconds", "1"),
            ],
            stdout=log,
            stderr=log,
            stdin=subprocess.DEVNULL,
            env=environment,
            # Ctrl-C is for the demo, which then ends its daemon in order.
            start_new_session=True,
        )
    try:
        await _ready(url, process, reactor, folder / "chatd.log")
        yield url
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


async def _ready(url: str, process: subprocess.Popen[bytes], reactor: Any, log: Path) -> None:
    ends = reactor.seconds() + START_SECONDS
    async with ChatClient(url, "nobody", patience=0, reactor=reactor) as client:
        while reactor.seconds() < ends and process.poll() is None:
            try:
                await client.me()
            except ChatError as problem:
                # Refusing a token that was never issued is what a daemon that runs does.
                if getattr(problem, "status", 0) == 401:
                    return
            await deferLater(reactor, 0.05)
    raise Trouble("the daemon did not start:\n" + log.read_text("utf-8", "replace"))
