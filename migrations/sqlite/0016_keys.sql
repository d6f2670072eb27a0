-- What the listing of all agents' keys needs to stay quick with two million keys: an index for each sort order, and one for each
-- filter that may select few of them. None contains last_used_at, which changes with every token; idle_since changes once a day.
CREATE INDEX api_keys_by_use ON api_keys (idle_since, id);
-- Keys that never expire come last. The number is the largest time. A column, because SQLite compares no pairs with an expression
-- by an index.
ALTER TABLE api_keys ADD COLUMN ends_at INTEGER GENERATED ALWAYS AS (COALESCE(expires_at, 9223372036854775807)) VIRTUAL;
CREATE INDEX api_keys_by_end ON api_keys (ends_at, id);
CREATE INDEX api_keys_by_name ON api_keys (LOWER(name), id);
CREATE INDEX api_keys_by_prefix ON api_keys (key_prefix, id);
-- Keys that were used on the day of their creation only are in this index as well.
CREATE INDEX api_keys_never_used ON api_keys (created_at, id) WHERE idle_since = created_at;
CREATE INDEX api_keys_without_end ON api_keys (created_at, id) WHERE status = 'active' AND expires_at IS NULL;
CREATE INDEX api_keys_revoked ON api_keys (created_at, id) WHERE status = 'revoked';
CREATE INDEX api_keys_with_networks ON api_keys (created_at, id) WHERE networks IS NOT NULL;
CREATE INDEX api_keys_with_scope ON api_keys (created_at, id) WHERE scope IS NOT NULL;
CREATE INDEX api_keys_with_token_life ON api_keys (created_at, id) WHERE token_life IS NOT NULL;
CREATE INDEX api_keys_with_uses ON api_keys (created_at, id) WHERE uses_left IS NOT NULL;
