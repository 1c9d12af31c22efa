"""The `chatd` command: chatting from a terminal, and running a daemon without knowing twistd."""
