-- An index that grew with every message cost each of them a page of the WAL more. This one grows by
-- many messages of one inbox at a time; those after `indexed_seq` are not in it yet.
CREATE TABLE conversation (
    received_by INTEGER NOT NULL,
    sent_by INTEGER NOT NULL,
    sent_at INTEGER NOT NULL,
    seq INTEGER NOT NULL,
    PRIMARY KEY (received_by, sent_by, sent_at, seq)
) STRICT, WITHOUT ROWID;

INSERT INTO conversation SELECT received_by, sent_by, sent_at, seq FROM message;

ALTER TABLE inbox ADD COLUMN indexed_seq INTEGER NOT NULL DEFAULT 0;

UPDATE inbox SET indexed_seq = last_seq;

DROP INDEX message_conversation;
