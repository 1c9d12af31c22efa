"""Soaks: real daemons under load and faults for a long time. See `__main__`."""
