-- Deleted accounts whose messages are still to be deleted from the inboxes of others, in small
-- steps. The last message that was dealt with is named by its inbox, its time and its seq.
CREATE TABLE erasure (
    user_id INTEGER PRIMARY KEY,
    began_at INTEGER NOT NULL,
    due_at INTEGER NOT NULL,
    -- What was being sent when the account was deleted is found by a second pass.
    late INTEGER NOT NULL DEFAULT 0,
    received_by INTEGER NOT NULL DEFAULT 0,
    sent_at INTEGER NOT NULL DEFAULT 0,
    seq INTEGER NOT NULL DEFAULT 0
) STRICT;
