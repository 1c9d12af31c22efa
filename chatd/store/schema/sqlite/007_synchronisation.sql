-- What devices of one account need to show the same. Nothing of it is kept for accounts that have
-- never asked for it.

-- An account that has asked, and the number of its last change.
CREATE TABLE sync_state (
    user_id INTEGER PRIMARY KEY,
    last_change INTEGER NOT NULL
) STRICT;

-- One row for each conversation of such an account. All columns only grow, so the order in which
-- rows are merged does not matter. 0 stands for none.
CREATE TABLE conversation_summary (
    user_id INTEGER NOT NULL,
    peer INTEGER NOT NULL,
    last_at INTEGER NOT NULL DEFAULT 0,
    -- The last message of the peer, in the inbox of the account.
    received_seq INTEGER NOT NULL DEFAULT 0,
    received_at INTEGER NOT NULL DEFAULT 0,
    -- The last message to the peer, in the peer's inbox; those after `logged_after` are changes.
    sent_seq INTEGER NOT NULL DEFAULT 0,
    sent_at INTEGER NOT NULL DEFAULT 0,
    logged_after INTEGER NOT NULL DEFAULT 0,
    -- How far the account has read, in its own inbox.
    read_seq INTEGER NOT NULL DEFAULT 0,
    read_at INTEGER NOT NULL DEFAULT 0,
    -- The last messages to the peer that were delivered and read, in the peer's inbox.
    peer_delivered INTEGER NOT NULL DEFAULT 0,
    peer_read INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (user_id, peer)
) STRICT, WITHOUT ROWID;

CREATE INDEX conversation_summary_newest ON conversation_summary (user_id, last_at, peer);

-- What has changed, not how: a later change of the same thing replaces the earlier one.
CREATE TABLE change (
    user_id INTEGER NOT NULL,
    kind TEXT NOT NULL,
    peer INTEGER NOT NULL,
    seq INTEGER NOT NULL,
    number INTEGER NOT NULL,
    PRIMARY KEY (user_id, kind, peer, seq)
) STRICT, WITHOUT ROWID;

CREATE UNIQUE INDEX change_number ON change (user_id, number);

-- How far each inbox was delivered.
CREATE TABLE delivered (
    user_id INTEGER PRIMARY KEY,
    seq INTEGER NOT NULL
) STRICT;
