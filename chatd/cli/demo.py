"""`chatd demo`: a daemon in a temporary directory with two users in conversation."""

from __future__ import annotations

import argparse
import contextlib
import os
import random
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

from chatd.cli.errors import CommandError
from chatd.cli.printing import format_message
from chatd.cli.session import Session
from chatd.client import ChatClient, ChatError

START_SECONDS: Final = 20.0
STOP_SECONDS: Final = 15.0
PASSWORD: Final = "demo-password"

CONVERSATION: Final = (
    ("ann", "Hello Bob! This message was on disk before I saw that it was sent."),
    ("bob", "And I received it at once: it came down a stream that I keep open."),
    ("ann", "What if your connection breaks?"),
    ("bob", "Then I go on from my cursor and get every message once, in order."),
)


async def demo(args: argparse.Namespace, session: Session) -> None:
    """Show Ann and Bob chatting, then let the user chat with Bob in a browser."""
    with tempfile.TemporaryDirectory(prefix="chatd-demo-") as folder:
        async with daemon(Path(folder), session.reactor) as url:
            print(f"A daemon is running at {url} with its data in {folder}.", flush=True)
            ann, bob = ChatClient(url), ChatClient(url)
            async with ann, bob:
                ids = {
                    name: await _register(client, name)
                    for name, client in (("ann", ann), ("bob", bob))
                }
                await _converse({"ann": ann, "bob": bob}, ids)
                if not args.once:
                    print(
                        f"\nOpen {url}, log in as ann with the password {PASSWORD}, and write "
                        "to bob: he answers.\nCtrl-C ends the demo and deletes its data.",
                        flush=True,
                    )
                    await _reply(bob)


async def _register(client: ChatClient, name: str) -> int:
    user = await client.register(name, f"{name}@example.org", PASSWORD)
    await client.log_in(name, PASSWORD)
    return user.id


async def _converse(clients: dict[str, ChatClient], ids: dict[str, int]) -> None:
    follows = {name: client.follow("0") for name, client in clients.items()}
    for speaker, text in CONVERSATION:
        listener = "bob" if speaker == "ann" else "ann"
        receiving = Deferred.fromCoroutine(follows[listener].__anext__())
        await clients[speaker].send(ids[listener], text)
        print(format_message(await receiving, speaker), flush=True)


async def _reply(bob: ChatClient) -> None:
    """Reply to everybody who writes to Bob, until interrupted."""
    async for message in bob.follow("now"):
        count = len(message.text.split())
        words = "one word" if count == 1 else f"{count} words"
        await bob.send(message.sent_by, f"I read your {words}, message {message.seq} of my inbox.")


@contextlib.asynccontextmanager
async def daemon(folder: Path, reactor: Any) -> AsyncIterator[str]:
    """Run a daemon that is ready for requests, and give its URL; stopped on exit."""
    port = _free_port()
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
            # Ctrl-C must not reach the daemon: the demo stops it.
            start_new_session=True,
        )
    try:
        await _wait_until_ready(url, process, reactor, folder / "chatd.log")
        yield url
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _free_port() -> int:
    """A free port below those that systems give to outgoing connections.

    One of those may be taken until the daemon listens.
    """
    while True:
        port = random.randrange(20_000, 32_768)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


async def _wait_until_ready(
    url: str, process: subprocess.Popen[bytes], reactor: Any, log: Path
) -> None:
    deadline = reactor.seconds() + START_SECONDS
    async with ChatClient(url, "nobody", retry_seconds=0, reactor=reactor) as client:
        while reactor.seconds() < deadline and process.poll() is None:
            try:
                await client.me()
            except ChatError as error:
                # A running daemon rejects the made-up token.
                if getattr(error, "status", 0) == 401:
                    return
            await deferLater(reactor, 0.05)
    raise CommandError("the daemon did not start:\n" + log.read_text("utf-8", "replace"))
