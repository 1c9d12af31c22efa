"""What the store and the bus on PostgreSQL share: addresses, connections, the wire of NOTIFY."""
