"""The benchmark: a load generator, the servers it is pointed at, the tables and plots it makes."""
