"""Acknowledged messages survive kills of the daemon (invariant 5 in docs/architecture.md)."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from bench.processes import free_port
from tests.daemon import CHATS, Daemon, wait_until
from tests.integration.traffic import Follower, Sender, inbox


def test_a_message_survives_a_kill_right_after_its_201(tmp_path: Path) -> None:
    with Daemon(tmp_path, port=free_port()) as daemon:
        ann = daemon.register("ann")
        token = daemon.log_in("ann")
        for number in range(1, 4):
            client = daemon.client(token)
            sent = client.request("POST", CHATS, {"user_id": ann, "message": f"hai {number}"})
            daemon.kill()
            client.close()
            assert sent.status == 201
            assert sent.json["seq"] == number
            daemon.start()
            messages = inbox(daemon.client(token))
            assert [message["message"] for message in messages] == [
                f"hai {each}" for each in range(1, number + 1)
            ]
            assert messages[-1] == sent.json


def test_kills_under_load_neither_lose_nor_duplicate_messages(tmp_path: Path) -> None:
    with Daemon(tmp_path, port=free_port()) as daemon:
        users = {name: daemon.register(name) for name in ("ann", "bob", "cat")}
        tokens = {name: daemon.log_in(name) for name in users}
        followers = [(name, Follower(daemon.port, tokens[name])) for name in users for _ in "12"]
        senders = [
            Sender(daemon.port, tokens[name], f"{name}-{keys}", list(users.values()), keys)
            for name in users
            for keys in (True, False)
        ]
        for background in (*senders, *(follower for _, follower in followers)):
            background.start()
        for _ in range(3):
            before = sum(len(sender.acknowledged) for sender in senders)

            def enough(before: int = before) -> bool:
                return sum(len(sender.acknowledged) for sender in senders) > before + 150

            wait_until(enough, 30)
            daemon.kill()
            time.sleep(0.05)
            daemon.start()
        for sender in senders:
            sender.stop()
        inboxes = {name: inbox(daemon.client(tokens[name])) for name in users}
        ends = {name: len(messages) for name, messages in inboxes.items()}
        wait_until(
            lambda: all(len(follower.seen) >= ends[name] for name, follower in followers), 20
        )
        for _, follower in followers:
            follower.stop()

        assert [sender.refused for sender in senders] == [[]] * len(senders)
        by_text: dict[str, list[dict[str, Any]]] = {}
        for messages in inboxes.values():
            for message in messages:
                by_text.setdefault(message["message"], []).append(message)
        for sender in senders:
            for text, message in sender.acknowledged.items():
                assert by_text[text] == [message]
        assert all(len(found) == 1 for found in by_text.values())
        for name, follower in followers:
            assert follower.seen == inboxes[name]


def test_sends_in_progress_during_a_stop_are_not_lost(tmp_path: Path) -> None:
    with Daemon(tmp_path, port=free_port()) as daemon:
        ann = daemon.register("ann")
        token = daemon.log_in("ann")
        senders = [Sender(daemon.port, token, f"s{n}", [ann], keys=False) for n in range(6)]
        follower = Follower(daemon.port, token)
        for background in (*senders, follower):
            background.start()
        wait_until(lambda: sum(len(each.acknowledged) for each in senders) > 200, 30)
        assert daemon.stop() in (0, -15)
        daemon.start()
        time.sleep(0.2)
        for sender in senders:
            sender.stop()
        messages = inbox(daemon.client(token))
        wait_until(lambda: len(follower.seen) >= len(messages), 20)
        follower.stop()
        assert follower.seen == messages
        by_text = {message["message"]: message for message in messages}
        assert len(by_text) == len(messages)
        for sender in senders:
            assert sender.refused == []
            for text, message in sender.acknowledged.items():
                assert by_text[text] == message
