"""The part of Citus that chatd uses, made up on plain PostgreSQL.

Shards are tables that inherit from the distributed table, so statements on that see all of them,
but rows belong into shards: a trigger refuses others. The names of tables and functions are those
of Citus, which has them in pg_catalog.
"""

from __future__ import annotations

from typing import Any, Final

from chatd.store.sharded.schema import to_sharded
from chatd.store.sharded.tables import ALLOCATION, DISTRIBUTED
from tests.postgres_server import rows

_FUNCTIONS: Final = """
SET allow_system_table_mods = on;
INSERT INTO pg_extension (oid, extname, extowner, extnamespace, extrelocatable, extversion)
SELECT 999999, 'citus', 10, oid, false, 'made up' FROM pg_namespace WHERE nspname = 'pg_catalog';
RESET allow_system_table_mods;

CREATE VIEW citus_tables AS SELECT 1;
CREATE TABLE pg_dist_local_group (groupid integer NOT NULL);
CREATE TABLE pg_dist_node (groupid integer PRIMARY KEY, nodename text, nodeport integer,
    noderole text, shouldhaveshards boolean DEFAULT true);
CREATE TABLE pg_dist_partition (logicalrelid regclass PRIMARY KEY, partkey text);
CREATE TABLE pg_dist_shard (logicalrelid regclass, shardid bigint PRIMARY KEY, shardminvalue text,
    shardmaxvalue text);
CREATE TABLE pg_dist_placement (shardid bigint PRIMARY KEY, groupid integer NOT NULL);
CREATE SEQUENCE pg_dist_shardid_seq START 102008;
GRANT SELECT ON pg_dist_local_group, pg_dist_node, pg_dist_partition, pg_dist_shard,
    pg_dist_placement TO PUBLIC;

SET allow_system_table_mods = on;
INSERT INTO pg_depend (classid, objid, objsubid, refclassid, refobjid, refobjsubid, deptype)
SELECT 'pg_class'::regclass, oid, 0, 'pg_extension'::regclass, 999999, 0, 'e'
FROM pg_class WHERE relname = 'citus_tables' OR relname LIKE 'pg_dist_%';
RESET allow_system_table_mods;

CREATE FUNCTION lock_shard_metadata(mode integer, shards bigint[]) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    IF NOT (SELECT pg_has_role(relowner, 'USAGE') FROM pg_class
            WHERE oid = 'message'::regclass) THEN
        RAISE insufficient_privilege USING MESSAGE = 'must be owner of table message';
    END IF;
    IF mode = 5 THEN
        PERFORM pg_advisory_xact_lock_shared(each) FROM unnest(shards) AS each;
    ELSE
        PERFORM pg_advisory_xact_lock(each) FROM unnest(shards) AS each;
    END IF;
END $$;

CREATE FUNCTION refuse_rows() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE 'rows of % belong into its shards', TG_TABLE_NAME;
END $$;

CREATE FUNCTION create_distributed_table(table_name regclass, distribution_column text,
    shard_count integer DEFAULT 2, colocate_with text DEFAULT 'default') RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    shards integer := coalesce(
        (SELECT count(*) FROM pg_dist_shard
         WHERE colocate_with NOT IN ('default', 'none')
             AND logicalrelid = to_regclass(colocate_with) HAVING count(*) > 0),
        shard_count
    );
    width bigint := 4294967296 / shards;
    id bigint;
    low bigint;
    high bigint;
    shard text;
    renamed text;
BEGIN
    INSERT INTO pg_dist_partition VALUES (table_name, distribution_column);
    FOR number IN 0 .. shards - 1 LOOP
        id := nextval('pg_dist_shardid_seq');
        low := -2147483648 + number * width;
        high := CASE number WHEN shards - 1 THEN 2147483647 ELSE low + width - 1 END;
        shard := table_name || '_' || id;
        EXECUTE format('CREATE TABLE %I (LIKE %s INCLUDING ALL) INHERITS (%s)',
            shard, table_name, table_name);
        FOR renamed IN SELECT conname FROM pg_constraint
            WHERE conrelid = shard::regclass AND contype = 'p' LOOP
            EXECUTE format('ALTER TABLE %I RENAME CONSTRAINT %I TO %I', shard, renamed,
                table_name || '_pkey_' || id);
        END LOOP;
        EXECUTE format('INSERT INTO %I SELECT * FROM ONLY %s WHERE hashint8(%I) BETWEEN %s AND %s',
            shard, table_name, distribution_column, low, high);
        INSERT INTO pg_dist_shard VALUES (table_name, id, low, high);
        INSERT INTO pg_dist_placement
        SELECT id, groupid FROM pg_dist_node ORDER BY (groupid + number) %
            (SELECT count(*) FROM pg_dist_node), groupid LIMIT 1;
    END LOOP;
    EXECUTE format('DELETE FROM ONLY %s', table_name);
    EXECUTE format('CREATE TRIGGER refuse_rows BEFORE INSERT ON %s FOR EACH ROW'
        ' EXECUTE FUNCTION refuse_rows()', table_name);
END $$;

CREATE FUNCTION truncate_local_data_after_distributing_table(table_name regclass) RETURNS void
LANGUAGE sql AS '';

CREATE FUNCTION create_distributed_function(function_name regprocedure,
    distribution_arg_name text, colocate_with text) RETURNS void LANGUAGE sql AS '';

CREATE FUNCTION create_reference_table(table_name regclass) RETURNS void LANGUAGE sql AS $$
    INSERT INTO pg_dist_partition VALUES (table_name, NULL);
$$;

CREATE FUNCTION undistribute_table(table_name regclass) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    shard text;
BEGIN
    EXECUTE format('DROP TRIGGER IF EXISTS refuse_rows ON %s', table_name);
    FOR shard IN SELECT table_name || '_' || shardid FROM pg_dist_shard
        WHERE logicalrelid = table_name LOOP
        EXECUTE format('INSERT INTO %s SELECT * FROM %I', table_name, shard);
        EXECUTE format('DROP TABLE %I', shard);
    END LOOP;
    DELETE FROM pg_dist_placement USING pg_dist_shard AS shards
    WHERE shards.shardid = pg_dist_placement.shardid AND logicalrelid = table_name;
    DELETE FROM pg_dist_shard WHERE logicalrelid = table_name;
    DELETE FROM pg_dist_partition WHERE logicalrelid = table_name;
END $$;
"""


EMPTYING: Final = [
    *(f"DELETE FROM {table}" for table in DISTRIBUTED),
    f"UPDATE {ALLOCATION} SET next_id = 1",
    "UPDATE history SET epoch = NULL",
]
"""Statements that empty a database in the sharded layout."""


def make_up_citus(db: Any, nodes: int = 1) -> None:
    """Make the functions and tables of Citus in a database; the nodes are named `node1` and so on.

    All of them are this database, which is the coordinator, too.
    """
    rows(db, _FUNCTIONS)
    rows(db, "INSERT INTO pg_dist_local_group VALUES (1)")
    rows(
        db,
        "INSERT INTO pg_dist_node SELECT n, 'node' || n, 5432, 'primary'"
        " FROM generate_series(1, %s) AS n",
        nodes,
    )


def shard(db: Any, shards: int = 2) -> None:
    """Turn the tables of chatd in a database into the sharded layout."""
    for statement in to_sharded(shards):
        rows(db, statement)
