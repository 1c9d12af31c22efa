"""The domain: accounts, messages and waiting for them. Independent of HTTP and SQL."""
