-- Times are microseconds since the epoch; identifiers are UUIDs (16 bytes).

CREATE TABLE agents (
    id            BLOB    NOT NULL PRIMARY KEY,
    name          TEXT    NOT NULL UNIQUE,
    description   TEXT    NOT NULL,
    owner         TEXT    NOT NULL,
    status        TEXT    NOT NULL CHECK (status IN ('active', 'suspended', 'revoked')),
    agent_type    TEXT    NOT NULL CHECK (agent_type IN ('llm', 'tool', 'orchestrator', 'custom')),
    metadata_json TEXT    NOT NULL,
    created_at    INTEGER NOT NULL,
    updated_at    INTEGER NOT NULL,
    suspended_at  INTEGER,
    revoked_at    INTEGER,
    token_epoch   INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE INDEX agents_in_order ON agents (created_at, id);
CREATE INDEX agents_by_owner ON agents (owner, created_at, id);

CREATE TABLE api_keys (
    id            BLOB    NOT NULL PRIMARY KEY,
    agent_id      BLOB    NOT NULL REFERENCES agents (id) ON DELETE CASCADE,
    key_hash      BLOB    NOT NULL UNIQUE,
    key_prefix    TEXT    NOT NULL,
    name          TEXT    NOT NULL,
    status        TEXT    NOT NULL CHECK (status IN ('active', 'rotated', 'revoked')),
    expires_at    INTEGER,
    created_at    INTEGER NOT NULL,
    rotated_at    INTEGER,
    grace_ends_at INTEGER,
    revoked_at    INTEGER,
    last_used_at  INTEGER
) STRICT;
CREATE INDEX api_keys_by_agent ON api_keys (agent_id, created_at, id);

CREATE TABLE capabilities (
    id          BLOB    NOT NULL PRIMARY KEY,
    name        TEXT    NOT NULL UNIQUE,
    description TEXT    NOT NULL,
    created_at  INTEGER NOT NULL
) STRICT;
CREATE INDEX capabilities_in_order ON capabilities (created_at, id);

-- `granted_by` outlives the agent it names: a grant stands when its granter is deleted.
CREATE TABLE agent_capabilities (
    agent_id      BLOB    NOT NULL REFERENCES agents (id) ON DELETE CASCADE,
    capability_id BLOB    NOT NULL REFERENCES capabilities (id),
    granted_by    BLOB,
    granted_at    INTEGER NOT NULL,
    PRIMARY KEY (agent_id, capability_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX agent_capabilities_by_capability ON agent_capabilities (capability_id, agent_id);

-- No reference to agents: records stay when an agent goes.
CREATE TABLE audit_log (
    seq           INTEGER NOT NULL PRIMARY KEY,
    id            BLOB    NOT NULL,
    at            INTEGER NOT NULL,
    actor         BLOB,
    subject       BLOB,
    action        TEXT    NOT NULL,
    resource_type TEXT,
    resource_id   TEXT,
    details       TEXT    NOT NULL,
    ip            TEXT,
    success       INTEGER NOT NULL,
    request_id    TEXT,
    prev_hash     BLOB    NOT NULL,
    hash          BLOB    NOT NULL
) STRICT;

CREATE TABLE audit_head (
    id   INTEGER NOT NULL PRIMARY KEY CHECK (id = 1),
    seq  INTEGER NOT NULL,
    hash BLOB    NOT NULL
) STRICT;
INSERT INTO audit_head (id, seq, hash) VALUES (1, 0, zeroblob(32));

CREATE TABLE signing_keys (
    kid                TEXT    NOT NULL PRIMARY KEY,
    algorithm          TEXT    NOT NULL,
    sealed_private_key BLOB    NOT NULL,
    created_at         INTEGER NOT NULL
) STRICT;

CREATE TABLE imports (
    source      TEXT    NOT NULL PRIMARY KEY,
    imported_at INTEGER NOT NULL
) STRICT;
