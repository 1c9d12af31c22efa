"""PostgreSQL client code shared by the store and the bus; knows nothing of the schema."""
