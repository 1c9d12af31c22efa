"""PostgreSQL store, shared by any number of processes."""
