"""SQLite store, the default."""
