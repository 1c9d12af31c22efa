"""Implementations of `chatd.interfaces.IStore`, their schemas and migrations."""
