-- The tables of a chatd database on SQLite. Times are microseconds since the Unix epoch.

-- One row: the name of this database history. Cursors carry it; a restored backup gets a new one.
CREATE TABLE history (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    epoch TEXT
) STRICT;

INSERT INTO history (id, epoch) VALUES (1, NULL);

-- AUTOINCREMENT: ids are never reused. A deleted account stays as a row that keeps its name taken.
CREATE TABLE account (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    username TEXT NOT NULL,
    username_folded TEXT NOT NULL UNIQUE,
    email TEXT,
    password_hash TEXT,
    date_joined INTEGER NOT NULL,
    last_seen_at INTEGER,
    deleted_at INTEGER
) STRICT;

-- Deleted accounts whose inboxes are not empty yet; emptied in small steps, also after a restart.
CREATE TABLE purge (
    user_id INTEGER PRIMARY KEY
) STRICT;

CREATE TABLE token (
    digest BLOB PRIMARY KEY,
    user_id INTEGER NOT NULL,
    created_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX token_user ON token (user_id);

-- The end of each inbox, apart from the account because every message changes it.
CREATE TABLE inbox (
    user_id INTEGER PRIMARY KEY,
    last_seq INTEGER NOT NULL,
    last_sent_at INTEGER NOT NULL
) STRICT;

-- Clustered by inbox: any page and any catch-up is one range of the primary key.
CREATE TABLE message (
    received_by INTEGER NOT NULL,
    seq INTEGER NOT NULL,
    sent_by INTEGER NOT NULL,
    sent_at INTEGER NOT NULL,
    text TEXT NOT NULL,
    PRIMARY KEY (received_by, seq)
) STRICT, WITHOUT ROWID;

-- With the request itself, the row rebuilds the first message: no look into the inbox is needed.
CREATE TABLE idempotency (
    sent_by INTEGER NOT NULL,
    key TEXT NOT NULL,
    fingerprint BLOB NOT NULL,
    seq INTEGER NOT NULL,
    sent_at INTEGER NOT NULL,
    PRIMARY KEY (sent_by, key)
) STRICT, WITHOUT ROWID;

CREATE INDEX idempotency_sent_at ON idempotency (sent_at);
