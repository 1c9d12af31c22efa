"""The tests; they mirror chatd, one module a module. Shared suites lie here: `tests.contracts`."""
