-- The moment that the newest copy of `chatd db backup` shows; NULL if there is none.
ALTER TABLE history ADD COLUMN backed_up_at bigint;
