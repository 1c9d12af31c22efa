"""What chatd does: accounts, messages, waiting for them. Knows nothing of HTTP or SQL."""
