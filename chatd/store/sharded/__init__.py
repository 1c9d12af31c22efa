"""The store on a sharded PostgreSQL (Citus): shards on several servers, see `docs/scale.md`."""
