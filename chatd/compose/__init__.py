"""Composition root: creates the components; the only package that imports stores and buses.

`service.compose_service` creates the whole daemon from its settings. Tests call the same functions
with a clock, threads and a bus that they control.
"""
