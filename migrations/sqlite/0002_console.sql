-- The console: administrators and how they sign in, and what its pages count.

CREATE TABLE administrators (
    id                  BLOB    NOT NULL PRIMARY KEY,
    username            TEXT    NOT NULL UNIQUE,
    display_name        TEXT    NOT NULL,
    role                TEXT    NOT NULL CHECK (role IN ('viewer', 'operator', 'owner')),
    password_hash       TEXT    NOT NULL,
    password_changed_at INTEGER NOT NULL,
    created_at          INTEGER NOT NULL,
    updated_at          INTEGER NOT NULL,
    disabled_at         INTEGER,
    last_sign_in_at     INTEGER,
    totp_enabled_at     INTEGER
) STRICT;

-- `last_step` is the last 30-second step whose code was used: no code works twice.
CREATE TABLE totp_secrets (
    administrator_id BLOB    NOT NULL PRIMARY KEY REFERENCES administrators (id) ON DELETE CASCADE,
    sealed_secret    BLOB    NOT NULL,
    last_step        INTEGER NOT NULL
) STRICT;

CREATE TABLE recovery_codes (
    administrator_id BLOB    NOT NULL REFERENCES administrators (id) ON DELETE CASCADE,
    code_hash        BLOB    NOT NULL,
    used_at          INTEGER,
    PRIMARY KEY (administrator_id, code_hash)
) STRICT, WITHOUT ROWID;

CREATE TABLE passkeys (
    id               BLOB    NOT NULL PRIMARY KEY,
    administrator_id BLOB    NOT NULL REFERENCES administrators (id) ON DELETE CASCADE,
    credential_id    BLOB    NOT NULL UNIQUE,
    credential       TEXT    NOT NULL,
    name             TEXT    NOT NULL,
    created_at       INTEGER NOT NULL,
    last_used_at     INTEGER
) STRICT;
CREATE INDEX passkeys_by_administrator ON passkeys (administrator_id, created_at);

-- Found by the hash of what the cookie holds. Without an administrator: somebody who has not signed in yet.
CREATE TABLE sessions (
    key_hash         BLOB    NOT NULL PRIMARY KEY,
    id               BLOB    NOT NULL UNIQUE,
    administrator_id BLOB    REFERENCES administrators (id) ON DELETE CASCADE,
    data             TEXT    NOT NULL,
    started_at       INTEGER NOT NULL,
    last_seen_at     INTEGER NOT NULL,
    proved_at        INTEGER,
    ip               TEXT,
    user_agent       TEXT
) STRICT;
CREATE INDEX sessions_by_administrator ON sessions (administrator_id, last_seen_at);
CREATE INDEX sessions_by_last_seen ON sessions (last_seen_at);

CREATE TABLE setup_tokens (
    token_hash BLOB    NOT NULL PRIMARY KEY,
    expires_at INTEGER NOT NULL,
    used_at    INTEGER
) STRICT;

-- Failed sign-ins in a row, by a hash of whom or what they are counted for.
CREATE TABLE sign_in_failures (
    subject_hash BLOB    NOT NULL PRIMARY KEY,
    failures     INTEGER NOT NULL,
    last_at      INTEGER NOT NULL
) STRICT;
CREATE INDEX sign_in_failures_by_age ON sign_in_failures (last_at);

-- From which networks an administrator signed in: whom a stranger's wrong guesses must not keep out.
CREATE TABLE known_networks (
    administrator_id BLOB    NOT NULL REFERENCES administrators (id) ON DELETE CASCADE,
    network          TEXT    NOT NULL,
    last_at          INTEGER NOT NULL,
    PRIMARY KEY (administrator_id, network)
) STRICT, WITHOUT ROWID;

ALTER TABLE api_keys ADD COLUMN last_used_ip TEXT;
-- When the key was last used, or made, to the day: an index on `last_used_at` would move with every token.
ALTER TABLE api_keys ADD COLUMN idle_since INTEGER NOT NULL DEFAULT 0;
UPDATE api_keys SET idle_since = COALESCE(last_used_at, created_at);

CREATE TABLE api_key_uses (
    key_id BLOB    NOT NULL REFERENCES api_keys (id) ON DELETE CASCADE,
    day    INTEGER NOT NULL,
    uses   INTEGER NOT NULL,
    PRIMARY KEY (key_id, day)
) STRICT, WITHOUT ROWID;

-- Authentications by the hour (hours since the epoch).
CREATE TABLE activity (
    hour    INTEGER NOT NULL PRIMARY KEY,
    issued  INTEGER NOT NULL,
    refused INTEGER NOT NULL
) STRICT;

CREATE TABLE agent_counts (
    status TEXT    NOT NULL PRIMARY KEY,
    agents INTEGER NOT NULL
) STRICT;
INSERT INTO agent_counts (status, agents) VALUES ('active', 0), ('suspended', 0), ('revoked', 0);
UPDATE agent_counts SET agents = (SELECT COUNT(*) FROM agents WHERE agents.status = agent_counts.status);

CREATE INDEX api_keys_in_order ON api_keys (created_at, id);
CREATE INDEX api_keys_by_expiry ON api_keys (expires_at, id) WHERE status = 'active' AND expires_at IS NOT NULL;
CREATE INDEX api_keys_in_grace ON api_keys (grace_ends_at, id) WHERE status = 'rotated';
CREATE INDEX api_keys_by_idleness ON api_keys (idle_since, id) WHERE status = 'active';
