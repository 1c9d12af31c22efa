-- Deleted accounts whose messages are still to be deleted from the inboxes of others, in small
-- steps. The last message that was dealt with is named by its inbox, its time and its seq.
-- Distributed by user_id.
CREATE TABLE erasure (
    user_id bigint PRIMARY KEY,
    began_at bigint NOT NULL,
    due_at bigint NOT NULL,
    -- What was being sent when the account was deleted is found by a second pass.
    late boolean NOT NULL DEFAULT false,
    received_by bigint NOT NULL DEFAULT 0,
    sent_at bigint NOT NULL DEFAULT 0,
    seq bigint NOT NULL DEFAULT 0
);
