-- The messages of an inbox up to this seq are removed, because they were older than messages are kept,
-- and when the last of them was sent; 0 if there are none. Their rows are deleted later.
ALTER TABLE inbox ADD COLUMN removed_seq INTEGER NOT NULL DEFAULT 0;
ALTER TABLE inbox ADD COLUMN removed_at INTEGER NOT NULL DEFAULT 0;
