-- What devices of one account need to show the same. Nothing of it is kept for accounts that have
-- never asked for it. All tables here are distributed by user_id.

-- An account that has asked, and the number of its last change: the row is locked until the commit,
-- so that the order of numbers is that of commits. While it is not `settled`, transactions may be
-- running that began before the row was there, and do not record what they do for the account.
CREATE TABLE sync_state (
    user_id bigint PRIMARY KEY,
    last_change bigint NOT NULL,
    settled boolean NOT NULL DEFAULT false
) WITH (fillfactor = 50);

-- One row for each conversation of such an account. All columns only grow, so the order in which
-- rows are merged does not matter. 0 stands for none.
CREATE TABLE conversation_summary (
    user_id bigint NOT NULL,
    peer bigint NOT NULL,
    last_at bigint NOT NULL DEFAULT 0,
    -- The last message of the peer, in the inbox of the account.
    received_seq bigint NOT NULL DEFAULT 0,
    received_at bigint NOT NULL DEFAULT 0,
    -- The last message to the peer, in the peer's inbox; those after `logged_after` are changes.
    sent_seq bigint NOT NULL DEFAULT 0,
    sent_at bigint NOT NULL DEFAULT 0,
    logged_after bigint NOT NULL DEFAULT 0,
    -- How far the account has read, in its own inbox.
    read_seq bigint NOT NULL DEFAULT 0,
    read_at bigint NOT NULL DEFAULT 0,
    -- The last messages to the peer that were delivered and read, in the peer's inbox.
    peer_delivered bigint NOT NULL DEFAULT 0,
    peer_read bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (user_id, peer)
);

CREATE INDEX conversation_summary_newest ON conversation_summary (user_id, last_at, peer);

-- What has changed, not how: a later change of the same thing replaces the earlier one.
CREATE TABLE change (
    user_id bigint NOT NULL,
    kind text COLLATE "C" NOT NULL,
    peer bigint NOT NULL,
    seq bigint NOT NULL,
    number bigint NOT NULL,
    PRIMARY KEY (user_id, kind, peer, seq)
);

CREATE UNIQUE INDEX change_number ON change (user_id, number);

-- How far each inbox was delivered.
CREATE TABLE delivered (
    user_id bigint PRIMARY KEY,
    seq bigint NOT NULL
) WITH (fillfactor = 50);
