"""Stores: implementations of `chatd.interfaces.IStore`, with their schemas and migrations."""
