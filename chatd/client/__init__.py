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

from chatd.client.client import ChatClient, FollowTransport, Receipt
from chatd.client.errors import (
    APIError,
    ChatError,
    Gap,
    HistoryChanged,
    NoTokenError,
    NotSupported,
    Unreachable,
)
from chatd.client.follow import Follow, FollowChanges
from chatd.client.values import (
    BlockedUser,
    Change,
    Conversation,
    Conversations,
    ConversationSummary,
    Message,
    MessageChanged,
    MessageSent,
    Page,
    PeerMoved,
    Poll,
    Position,
    ReadMoved,
    Sent,
    Token,
    User,
)

__all__ = [
    "APIError",
    "BlockedUser",
    "Change",
    "ChatClient",
    "ChatError",
    "Conversation",
    "ConversationSummary",
    "Conversations",
    "Follow",
    "FollowChanges",
    "FollowTransport",
    "Gap",
    "HistoryChanged",
    "Message",
    "MessageChanged",
    "MessageSent",
    "NoTokenError",
    "NotSupported",
    "Page",
    "PeerMoved",
    "Poll",
    "Position",
    "ReadMoved",
    "Receipt",
    "Sent",
    "Token",
    "Unreachable",
    "User",
]
