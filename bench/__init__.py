"""Benchmark: a load generator, the servers under test, and tables and plots of the results."""
