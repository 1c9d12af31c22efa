"""Acknowledged messages survive kills of the daemon (invariant 5 in docs/architecture.md)."""

from __future__ import annotations

import time
from pathlib import Path

from bench.processes import free_port
from tests.daemon import CHATS, Daemon, wait_until
from tests.history import Event, check
from tests.integration.traffic import Follower, Sender, inbox, whole_inbox


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
        to = list(users.values())
        events: list[Event] = []
        followers = [
            Follower(daemon.port, tokens[name], users[name], f"{name} {device}", events)
            for name in users
            for device in "12"
        ]
        senders = [
            Sender(daemon.port, tokens[name], users[name], f"{name}-{keys}", to, keys, events)
            for name in users
            for keys in (True, False)
        ]
        for background in (*senders, *followers):
            background.start()
        for _ in range(3):
            before = sum(sender.acknowledged for sender in senders)

            def enough(before: int = before) -> bool:
                return sum(sender.acknowledged for sender in senders) > before + 150

            wait_until(enough, 30)
            daemon.kill()
            time.sleep(0.05)
            daemon.start()
        for sender in senders:
            sender.stop()
        inboxes = {users[name]: whole_inbox(daemon.client(tokens[name])) for name in users}
        everything = 2 * sum(map(len, inboxes.values()))
        wait_until(lambda: sum(follower.seen for follower in followers) >= everything, 20)
        for follower in followers:
            follower.stop()
        assert [sender.refused for sender in senders] == [[]] * len(senders)
        assert check(events, inboxes, [follower.name for follower in followers]) == []


def test_sends_in_progress_during_a_stop_are_not_lost(tmp_path: Path) -> None:
    with Daemon(tmp_path, port=free_port()) as daemon:
        ann = daemon.register("ann")
        token = daemon.log_in("ann")
        events: list[Event] = []
        senders = [
            Sender(daemon.port, token, ann, f"s{n}", [ann], keys=False, events=events)
            for n in range(6)
        ]
        follower = Follower(daemon.port, token, ann, "phone", events)
        for background in (*senders, follower):
            background.start()
        wait_until(lambda: sum(each.acknowledged for each in senders) > 200, 30)
        assert daemon.stop() in (0, -15)
        daemon.start()
        time.sleep(0.2)
        for sender in senders:
            sender.stop()
        stored = whole_inbox(daemon.client(token))
        wait_until(lambda: follower.seen >= len(stored), 20)
        follower.stop()
        assert [sender.refused for sender in senders] == [[]] * len(senders)
        assert check(events, {ann: stored}, [follower.name]) == []
