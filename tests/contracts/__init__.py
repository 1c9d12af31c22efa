"""Contract suites that every implementation of `chatd.interfaces` passes."""
