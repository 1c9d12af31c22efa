-- The tables of a chatd database on PostgreSQL. Times are microseconds since the Unix epoch.
--
-- "Distributed by" names the column by which a sharded PostgreSQL (Citus) would spread the table.
-- Tables distributed by the owner of an inbox are co-located, and the statements that run for every
-- message touch their rows by that column first. No foreign key spans users. Tables without such
-- a column are small and change seldom: reference tables, with a copy on every node.

-- One row: the version of this schema. Reference.
CREATE TABLE schema_version (
    id integer PRIMARY KEY CHECK (id = 1),
    version integer NOT NULL
);

INSERT INTO schema_version VALUES (1, 0);

-- One row: the name of this database history. Cursors carry it. `made_in` names the database that
-- the name was made in: a restored copy is another one, and gets a new name. Reference.
CREATE TABLE history (
    id integer PRIMARY KEY CHECK (id = 1),
    epoch text,
    made_in text
);

INSERT INTO history VALUES (1, NULL, NULL);

-- A deleted account stays as a row that keeps its name taken. Reference: usernames are unique
-- over all accounts.
CREATE TABLE account (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    username text COLLATE "C" NOT NULL,
    username_folded text COLLATE "C" NOT NULL UNIQUE,
    email text,
    password_hash text,
    date_joined bigint NOT NULL,
    deleted_at bigint
);

-- Apart from the account because it changes often. Distributed by user_id.
CREATE TABLE seen (
    user_id bigint PRIMARY KEY,
    last_seen_at bigint NOT NULL
) WITH (fillfactor = 70);

-- Deleted accounts whose inboxes are not empty yet; emptied in small steps. Distributed by user_id.
CREATE TABLE purge (
    user_id bigint PRIMARY KEY
);

-- Distributed by digest: that is what a token is looked up by.
CREATE TABLE token (
    digest bytea PRIMARY KEY,
    user_id bigint NOT NULL,
    created_at bigint NOT NULL
);

CREATE INDEX token_user ON token (user_id);

-- The end of each inbox, apart from the account because every message changes it. The row outlives
-- the account: a message that was under way when the account was deleted finds it closed. The free
-- space in its pages lets it change in place, without touching the index. Distributed by user_id.
CREATE TABLE inbox (
    user_id bigint PRIMARY KEY,
    last_seq bigint NOT NULL,
    last_sent_at bigint NOT NULL,
    closed boolean NOT NULL DEFAULT false
) WITH (fillfactor = 50);

-- Any page and any catch-up is one range of the primary key. Distributed by received_by.
CREATE TABLE message (
    received_by bigint NOT NULL,
    seq bigint NOT NULL,
    sent_by bigint NOT NULL,
    sent_at bigint NOT NULL,
    text text COLLATE "C" NOT NULL,
    PRIMARY KEY (received_by, seq)
);

-- With the request itself, the row rebuilds the first message. Distributed by sent_by: a send with
-- a key touches two owners, the sender and the recipient.
CREATE TABLE idempotency (
    sent_by bigint NOT NULL,
    key text COLLATE "C" NOT NULL,
    fingerprint bytea NOT NULL,
    seq bigint NOT NULL,
    sent_at bigint NOT NULL,
    PRIMARY KEY (sent_by, key)
);

CREATE INDEX idempotency_sent_at ON idempotency (sent_at);

-- What each transaction of messages was answered, for some minutes: when the connection is lost
-- before the answer has come, the statement is sent again and either finds its row here, or is the
-- first to write it. Ids begin with the time. A lane's batches all go to one node.
CREATE TABLE batch (
    id uuid PRIMARY KEY,
    places integer[] NOT NULL,
    seqs bigint[] NOT NULL,
    times bigint[] NOT NULL
);

-- Not worth the time to compress: a row is read only after a fault.
ALTER TABLE batch ALTER places SET STORAGE EXTERNAL;
ALTER TABLE batch ALTER seqs SET STORAGE EXTERNAL;
ALTER TABLE batch ALTER times SET STORAGE EXTERNAL;
