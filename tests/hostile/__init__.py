"""Attacks on a real daemon, and what innocent clients notice of them.

`python -m tests.hostile` runs all of them and prints a table; see docs/security.md.
"""
