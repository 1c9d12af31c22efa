"""chatd, a long-polling chat daemon: Twisted, Klein, SQLite or PostgreSQL."""

__version__ = "0.1.0"
