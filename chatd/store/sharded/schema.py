"""SQL that turns the tables of one PostgreSQL database into shards on several servers, and back."""

from __future__ import annotations

from typing import Final

from chatd.store.sharded.tables import ALLOCATION, DISTRIBUTED, REFERENCE, SLOT

IS_SHARDED: Final = """
SELECT EXISTS (SELECT FROM pg_extension WHERE extname = 'citus')
    AND to_regclass('username') IS NOT NULL
"""
"""Whether the database has Citus, and its tables have the sharded layout."""

# Constraints on distributed tables have to contain the column of the distribution.
_TO_SHARDED: Final = f"""
CREATE TABLE username (
    slot bigint NOT NULL,
    folded text COLLATE "C" NOT NULL,
    user_id bigint NOT NULL,
    PRIMARY KEY (slot, folded)
);
INSERT INTO username SELECT {SLOT}, username_folded, id FROM account;

CREATE TABLE {ALLOCATION} (id integer PRIMARY KEY CHECK (id = 1), next_id bigint NOT NULL);
INSERT INTO {ALLOCATION} SELECT 1, coalesce(max(id), 0) + 1 FROM account;

ALTER TABLE account DROP CONSTRAINT account_username_folded_key, ALTER id DROP IDENTITY;

ALTER TABLE token DROP CONSTRAINT token_pkey, ADD PRIMARY KEY (user_id, digest),
    ALTER id DROP IDENTITY;
CREATE INDEX token_digest ON token (digest);

CREATE TABLE claim (
    sent_by bigint NOT NULL,
    key text COLLATE "C" NOT NULL,
    fingerprint bytea NOT NULL,
    at bigint NOT NULL,
    holder uuid,
    PRIMARY KEY (sent_by, key)
);
CREATE INDEX claim_at ON claim (at);
INSERT INTO claim SELECT sent_by, key, fingerprint, sent_at, NULL FROM idempotency;

ALTER TABLE idempotency RENAME TO idempotency_plain;
ALTER INDEX idempotency_pkey RENAME TO idempotency_plain_pkey;
ALTER INDEX idempotency_sent_at RENAME TO idempotency_plain_sent_at;
CREATE TABLE idempotency (
    received_by bigint NOT NULL,
    sent_by bigint NOT NULL,
    key text COLLATE "C" NOT NULL,
    fingerprint bytea NOT NULL,
    seq bigint NOT NULL,
    sent_at bigint NOT NULL,
    PRIMARY KEY (received_by, sent_by, key)
);
INSERT INTO idempotency
SELECT DISTINCT ON (sent_by, key) message.received_by, old.*
FROM idempotency_plain AS old JOIN contact USING (sent_by)
JOIN message ON message.received_by = contact.received_by AND message.seq = old.seq
    AND message.sent_by = old.sent_by AND message.sent_at = old.sent_at;
DROP TABLE idempotency_plain;
CREATE INDEX idempotency_sent_at ON idempotency (sent_at);

DROP TABLE batch;
CREATE TABLE batch (
    owner bigint NOT NULL,
    id uuid NOT NULL,
    places integer[] NOT NULL,
    seqs bigint[] NOT NULL,
    times bigint[] NOT NULL,
    senders bigint[] NOT NULL,
    recipients bigint[] NOT NULL,
    kind text COLLATE "C" NOT NULL,
    told boolean NOT NULL DEFAULT false,
    PRIMARY KEY (owner, id)
);
"""

_TO_PLAIN: Final = f"""
ALTER TABLE account ALTER id ADD GENERATED ALWAYS AS IDENTITY,
    ADD CONSTRAINT account_username_folded_key UNIQUE (username_folded);
SELECT setval(pg_get_serial_sequence('account', 'id'), next_id, false) FROM {ALLOCATION};
DROP TABLE username, claim, {ALLOCATION}, batch;

DROP INDEX token_digest;
ALTER TABLE token DROP CONSTRAINT token_pkey, ADD PRIMARY KEY (digest),
    ALTER id ADD GENERATED ALWAYS AS IDENTITY;
SELECT setval(pg_get_serial_sequence('token', 'id'), (SELECT coalesce(max(id), 0) + 1 FROM token),
    false);

CREATE TABLE idempotency_plain (
    sent_by bigint NOT NULL,
    key text COLLATE "C" NOT NULL,
    fingerprint bytea NOT NULL,
    seq bigint NOT NULL,
    sent_at bigint NOT NULL
);
INSERT INTO idempotency_plain
SELECT DISTINCT ON (sent_by, key) sent_by, key, fingerprint, seq, sent_at FROM idempotency
ORDER BY sent_by, key, sent_at DESC;
DROP TABLE idempotency;
ALTER TABLE idempotency_plain RENAME TO idempotency;
ALTER TABLE idempotency ADD CONSTRAINT idempotency_pkey PRIMARY KEY (sent_by, key);
CREATE INDEX idempotency_sent_at ON idempotency (sent_at);

CREATE TABLE batch (
    id uuid PRIMARY KEY,
    places integer[] NOT NULL,
    seqs bigint[] NOT NULL,
    times bigint[] NOT NULL
);
ALTER TABLE batch ALTER places SET STORAGE EXTERNAL;
ALTER TABLE batch ALTER seqs SET STORAGE EXTERNAL;
ALTER TABLE batch ALTER times SET STORAGE EXTERNAL;
"""

_LARGEST: Final = "message"
"""The table that names the others' co-location, and the number of shards."""


def distribution(shards: int | None = None) -> list[str]:
    """Statements that distribute the tables that are not distributed yet.

    `shards` is their number; None if some tables are distributed already, as after a migration.
    """
    count = "" if shards is None else f", shard_count => {shards}, colocate_with => 'none'"
    others = [table for table in DISTRIBUTED if table != _LARGEST]
    return [
        *[
            f"SELECT create_reference_table('{table}') WHERE {_IS_LOCAL.format(table)}"
            for table in REFERENCE
        ],
        f"SELECT create_distributed_table('{_LARGEST}', '{DISTRIBUTED[_LARGEST]}'{count})"
        f" WHERE {_IS_LOCAL.format(_LARGEST)}",
        *[
            f"SELECT create_distributed_table('{table}', '{DISTRIBUTED[table]}',"
            f" colocate_with => '{_LARGEST}') WHERE {_IS_LOCAL.format(table)}"
            for table in others
        ],
    ]


SEQUENTIALLY: Final = "SET LOCAL citus.multi_shard_modify_mode = 'sequential'"
"""Begins a transaction that makes or drops the function and uses distributed tables, too.

Citus refuses what concerns functions after it has used several connections to a server at once.
"""

FUNCTION: Final = "chatd_run_in_lane"
SIGNATURE: Final = f"{FUNCTION}(bigint, text[])"

LACKS_FUNCTION: Final = f"""
SELECT to_regprocedure('{SIGNATURE}') IS NULL AND pg_has_role(relowner, 'USAGE')
FROM pg_class WHERE oid = 'message'::regclass
"""
"""Whether the function is missing, and this role is the one to make it."""

# Plans are those of the process's own connections, see `chatd.postgres.connection`. Every statement
# returns rows, so that it can be no command that changes tables or roles. Those of
# the last one are returned, as an array of JSON objects, whose members are in the order of columns.
_FUNCTION: Final = f"""
CREATE FUNCTION {FUNCTION}(lane bigint, statements text[]) RETURNS text
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT SET enable_seqscan = off
AS $$
DECLARE
    statement text;
    item record;
    result text[];
BEGIN
    FOREACH statement IN ARRAY statements LOOP
        result := ARRAY[]::text[];
        FOR item IN EXECUTE statement LOOP
            result := result || row_to_json(item)::text;
        END LOOP;
    END LOOP;
    RETURN '[' || array_to_string(result, ',') || ']';
END $$
"""


def delegation() -> list[str]:
    """Statements that make the function of `chatd.store.sharded.delegated` on all servers."""
    return [
        _FUNCTION,
        f"SELECT create_distributed_function('{SIGNATURE}', '$1', colocate_with => '{_LARGEST}')",
        # It does to the tables whatever it is told.
        f"REVOKE ALL ON FUNCTION {SIGNATURE} FROM PUBLIC",
    ]


def _cleaning() -> list[str]:
    """Statements that remove the rows which distributing a table has left on the coordinator."""
    return [
        f"SELECT truncate_local_data_after_distributing_table('{table}')"
        for table in (*REFERENCE, *DISTRIBUTED)
    ]


_IS_LOCAL: Final = "NOT EXISTS (SELECT FROM pg_dist_partition WHERE logicalrelid = '{}'::regclass)"


def to_sharded(shards: int) -> list[str]:
    """Statements that turn the plain layout into the sharded one, in one transaction."""
    return [_TO_SHARDED, *distribution(shards), *delegation(), *_cleaning()]


def to_plain() -> list[str]:
    """Statements that turn the sharded layout into the plain one, in one transaction."""
    tables = (*DISTRIBUTED, *REFERENCE)
    return [
        f"DROP FUNCTION IF EXISTS {SIGNATURE}",
        *[f"SELECT undistribute_table('{table}')" for table in tables],
        _FORGET_UNSETTLED,
        _TO_PLAIN,
    ]


# Accounts that were beginning to have changes, of which nobody has seen any: they begin anew.
_FORGET_UNSETTLED: Final = """
DELETE FROM change USING sync_state
WHERE sync_state.user_id = change.user_id AND NOT settled;
DELETE FROM conversation_summary USING sync_state
WHERE sync_state.user_id = conversation_summary.user_id AND NOT settled;
DELETE FROM sync_state WHERE NOT settled;
"""

UNTOLD: Final = "SELECT count(*) FROM batch WHERE NOT told"
"""Transactions whose senders are still to be told of them."""
