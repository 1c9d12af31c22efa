-- The bytes of UTF-8 of the texts of an inbox, without those of messages that are removed. The lock
-- that adding a column takes waits for those who are writing.
ALTER TABLE inbox ADD COLUMN text_bytes bigint NOT NULL DEFAULT 0;

UPDATE inbox SET text_bytes = held.bytes FROM (
    SELECT received_by, sum(octet_length(text)) AS bytes
    FROM message JOIN inbox ON user_id = received_by AND seq > removed_seq GROUP BY received_by
) AS held WHERE user_id = received_by;
