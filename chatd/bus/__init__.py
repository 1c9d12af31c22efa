"""Implementations of `chatd.interfaces.IBus`."""
