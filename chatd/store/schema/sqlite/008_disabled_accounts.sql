-- When an administrator disabled the account; NULL if it may be used.
ALTER TABLE account ADD COLUMN disabled_at INTEGER;
