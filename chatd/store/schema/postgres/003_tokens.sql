-- Tokens get an id that clients can name, and that is never reused. `scopes` has the bits of
-- `chatd.model.Scope`, by default all. The free space in its pages lets `last_used_at` change in
-- place, without touching an index. Adding the ids writes the table anew and locks it meanwhile.
ALTER TABLE token SET (fillfactor = 80);

ALTER TABLE token
    ADD COLUMN id bigint GENERATED ALWAYS AS IDENTITY,
    ADD COLUMN label text COLLATE "C",
    ADD COLUMN scopes smallint NOT NULL DEFAULT 7,
    ADD COLUMN last_used_at bigint,
    ADD COLUMN expires_at bigint;

CREATE UNIQUE INDEX token_user_id ON token (user_id, id);

DROP INDEX token_user;

CREATE INDEX token_expiry ON token (expires_at) WHERE expires_at IS NOT NULL;

-- Users by the beginning of their name; deleted accounts, which keep their names, cost nothing.
CREATE INDEX account_directory ON account (username_folded) WHERE deleted_at IS NULL;
