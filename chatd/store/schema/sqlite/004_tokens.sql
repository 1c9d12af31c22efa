-- Tokens get an id that clients can name, and that is never reused (AUTOINCREMENT); existing ones in
-- the order of their creation. `scopes` has the bits of `chatd.model.Scope`, by default all.
CREATE TABLE token_with_id (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    digest BLOB NOT NULL,
    user_id INTEGER NOT NULL,
    label TEXT,
    scopes INTEGER NOT NULL DEFAULT 7,
    created_at INTEGER NOT NULL,
    last_used_at INTEGER,
    expires_at INTEGER
) STRICT;

INSERT INTO token_with_id (digest, user_id, created_at)
SELECT digest, user_id, created_at FROM token ORDER BY created_at, digest;

DROP TABLE token;

ALTER TABLE token_with_id RENAME TO token;

-- Made after the copy: sorting once is much faster than inserting at random places.
CREATE UNIQUE INDEX token_digest ON token (digest);

CREATE INDEX token_user ON token (user_id, id);

CREATE INDEX token_expiry ON token (expires_at) WHERE expires_at IS NOT NULL;

-- Users by the beginning of their name; deleted accounts, which keep their names, cost nothing.
CREATE INDEX account_directory ON account (username_folded) WHERE deleted_at IS NULL;
