"""A chatd client for Twisted programs, based on treq.

    client = ChatClient("http://127.0.0.1:8080")
    await client.log_in("ann", "secret")
    await client.send(2, "hello")
    async for message in client.follow(since="0"):
        print(message.sent_by, message.text)

Calls are retried while the service is unreachable, restarting or overloaded; a message is stored
exactly once however often its send is retried; `follow` yields every message of the inbox exactly
once and in order, by a stream or by long polls, whatever happens to connections. docs/client.md has
complete programs.
"""

from chatd.client.client import ChatClient, FollowTransport
from chatd.client.errors import (
    APIError,
    ChatError,
    Gap,
    HistoryChanged,
    NoTokenError,
    Unreachable,
)
from chatd.client.follow import Follow
from chatd.client.values import Conversation, Message, Page, Poll, Position, Sent, Token, User

__all__ = [
    "APIError",
    "ChatClient",
    "ChatError",
    "Conversation",
    "Follow",
    "FollowTransport",
    "Gap",
    "HistoryChanged",
    "Message",
    "NoTokenError",
    "Page",
    "Poll",
    "Position",
    "Sent",
    "Token",
    "Unreachable",
    "User",
]
