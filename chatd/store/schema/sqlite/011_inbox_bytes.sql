-- The bytes of UTF-8 of the texts of an inbox, without those of messages that are removed.
ALTER TABLE inbox ADD COLUMN text_bytes INTEGER NOT NULL DEFAULT 0;

UPDATE inbox SET text_bytes = (
    SELECT coalesce(sum(length(CAST(text AS BLOB))), 0) FROM message
    WHERE received_by = user_id AND seq > removed_seq
);
