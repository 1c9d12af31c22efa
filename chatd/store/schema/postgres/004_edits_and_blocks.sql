-- The times of the last edit and of the deletion; NULL where there was none. The text of a deleted
-- message is empty.
ALTER TABLE message ADD COLUMN edited_at bigint;
ALTER TABLE message ADD COLUMN deleted_at bigint;

-- Whose messages each account does not want. Distributed by user_id, the owner of the inbox.
CREATE TABLE block (
    user_id bigint NOT NULL,
    blocked_id bigint NOT NULL,
    PRIMARY KEY (user_id, blocked_id)
);

-- How often the owner has changed their blocks; 0 means that there are none. A transaction of
-- messages that has read the blocks finds out here, once it holds the row's lock, whether they have
-- changed since.
ALTER TABLE inbox ADD COLUMN block_changes bigint NOT NULL DEFAULT 0;
