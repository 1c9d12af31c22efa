-- The times of the last edit and of the deletion; NULL where there was none. The text of a deleted
-- message is empty.
ALTER TABLE message ADD COLUMN edited_at INTEGER;
ALTER TABLE message ADD COLUMN deleted_at INTEGER;

-- Whose messages each account does not want.
CREATE TABLE block (
    user_id INTEGER NOT NULL,
    blocked_id INTEGER NOT NULL,
    PRIMARY KEY (user_id, blocked_id)
) STRICT, WITHOUT ROWID;
