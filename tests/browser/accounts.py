"""Accounts of the browser tests, which also send messages past the page."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from tests.daemon import CHATS, Client, Daemon, bearer

CONVERSATIONS = "/api/v1/conversations/"


@dataclass(frozen=True)
class Account:
    """An account with a token, which the page and `send` share."""

    daemon: Daemon
    name: str
    id: int
    token: str

    @classmethod
    def create(cls, daemon: Daemon, name: str) -> Account:
        """Register and log in."""
        return cls(daemon, name, daemon.register(name), daemon.token(name))

    def send(self, to: Account, *texts: str) -> None:
        """Send messages, as another device of this account would."""
        client = Client(self.daemon.port, bearer(self.token))
        try:
            for text in texts:
                response = client.request("POST", CHATS, {"user_id": to.id, "message": text})
                assert response.status == 201, response
        finally:
            client.close()

    def edit(self, to: Account, seq: int, text: str) -> None:
        """Edit a message to `to`."""
        body = {"user_id": to.id, "seq": seq, "message": text}
        response = self.daemon.request("PATCH", CHATS, body, bearer(self.token))
        assert response.status == 200, response

    def delete(self, to: Account, seq: int) -> None:
        """Delete a message to `to`."""
        target = f"{CHATS}?user_id={to.id}&seq={seq}"
        assert self.daemon.request("DELETE", target, None, bearer(self.token)).status == 204

    def mark_read(self, peer: Account, seq: int) -> None:
        """Say that what `peer` sent is read up to a place in the inbox."""
        body = {"user_id": peer.id, "seq": seq}
        target = f"{CONVERSATIONS}read/"
        assert self.daemon.request("PUT", target, body, bearer(self.token)).status == 204

    def unread(self, peer: Account) -> int:
        """How many messages of `peer` the service counts as unread."""
        response = self.daemon.request("GET", CONVERSATIONS, None, bearer(self.token))
        listed = {each["user_id"]: each["unread"] for each in response.json["conversations"]}
        return int(listed[peer.id])

    def conversation(self, peer: Account) -> list[str]:
        """The texts that the service holds of a conversation, oldest first."""
        client = Client(self.daemon.port, bearer(self.token))
        texts: list[str] = []
        before = ""
        try:
            while True:
                page = client.get(f"{CHATS}?with={peer.id}&limit=100{before}").json
                texts += [message["message"] for message in page["messages"]]
                if page["meta"]["older"] is None:
                    return texts[::-1]
                before = f"&before={page['meta']['older']}"
        finally:
            client.close()


def numbered(numbers: Iterable[int]) -> list[str]:
    """Texts of messages that contain their position in a conversation."""
    return [f"message {number}" for number in numbers]
