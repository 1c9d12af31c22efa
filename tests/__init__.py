"""Tests; modules mirror those of chatd. Contract suites are in `tests.contracts`."""
