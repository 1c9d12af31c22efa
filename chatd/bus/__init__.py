"""Buses: implementations of `chatd.interfaces.IBus`."""
