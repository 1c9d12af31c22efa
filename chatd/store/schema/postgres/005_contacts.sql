-- One row for each pair of accounts of which the first has sent the second a message. It is written
-- with the first message only, and found from both sides. Distributed by received_by.
CREATE TABLE contact (
    sent_by bigint NOT NULL,
    received_by bigint NOT NULL,
    PRIMARY KEY (sent_by, received_by)
);

CREATE INDEX contact_received_by ON contact (received_by, sent_by);

-- From pair to pair through the index of conversations, whatever the number of messages.
INSERT INTO contact (sent_by, received_by)
WITH RECURSIVE pair (received_by, sent_by) AS (
    SELECT user_id, (SELECT min(sent_by) FROM message WHERE received_by = inbox.user_id)
    FROM inbox WHERE NOT closed
    UNION ALL
    SELECT received_by, (
        SELECT min(sent_by) FROM message
        WHERE received_by = pair.received_by AND sent_by > pair.sent_by
    ) FROM pair WHERE sent_by IS NOT NULL
)
SELECT sent_by, received_by FROM pair WHERE sent_by IS NOT NULL;
