-- One row for each pair of accounts of which the first has sent the second a message. It is written
-- with the first message only, and found from both sides.
CREATE TABLE contact (
    sent_by INTEGER NOT NULL,
    received_by INTEGER NOT NULL,
    PRIMARY KEY (sent_by, received_by)
) STRICT, WITHOUT ROWID;

CREATE INDEX contact_received_by ON contact (received_by, sent_by);

-- From pair to pair through the index of conversations, whatever the number of messages.
INSERT INTO contact (sent_by, received_by)
WITH RECURSIVE pair (received_by, sent_by) AS (
    SELECT user_id, (SELECT min(sent_by) FROM conversation WHERE received_by = inbox.user_id)
    FROM inbox
    UNION ALL
    SELECT received_by, (
        SELECT min(sent_by) FROM conversation
        WHERE received_by = pair.received_by AND sent_by > pair.sent_by
    ) FROM pair WHERE sent_by IS NOT NULL
)
SELECT sent_by, received_by FROM pair WHERE sent_by IS NOT NULL;

-- The newest messages of each inbox are not in that index yet.
INSERT OR IGNORE INTO contact (sent_by, received_by)
SELECT sent_by, received_by FROM inbox JOIN message ON received_by = user_id AND seq > indexed_seq;
