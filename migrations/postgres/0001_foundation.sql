-- Times are microseconds since the epoch; identifiers are UUIDs.

CREATE TABLE agents (
    id            UUID    NOT NULL PRIMARY KEY,
    name          TEXT    NOT NULL UNIQUE,
    description   TEXT    NOT NULL,
    owner         TEXT    NOT NULL,
    status        TEXT    NOT NULL CHECK (status IN ('active', 'suspended', 'revoked')),
    agent_type    TEXT    NOT NULL CHECK (agent_type IN ('llm', 'tool', 'orchestrator', 'custom')),
    metadata_json TEXT    NOT NULL,
    created_at    BIGINT  NOT NULL,
    updated_at    BIGINT  NOT NULL,
    suspended_at  BIGINT,
    revoked_at    BIGINT,
    token_epoch   BIGINT  NOT NULL DEFAULT 0
);
CREATE INDEX agents_in_order ON agents (created_at, id);
CREATE INDEX agents_by_owner ON agents (owner, created_at, id);

CREATE TABLE api_keys (
    id            UUID    NOT NULL PRIMARY KEY,
    agent_id      UUID    NOT NULL REFERENCES agents (id) ON DELETE CASCADE,
    key_hash      BYTEA   NOT NULL UNIQUE,
    key_prefix    TEXT    NOT NULL,
    name          TEXT    NOT NULL,
    status        TEXT    NOT NULL CHECK (status IN ('active', 'rotated', 'revoked')),
    expires_at    BIGINT,
    created_at    BIGINT  NOT NULL,
    rotated_at    BIGINT,
    grace_ends_at BIGINT,
    revoked_at    BIGINT,
    last_used_at  BIGINT
);
CREATE INDEX api_keys_by_agent ON api_keys (agent_id, created_at, id);

CREATE TABLE capabilities (
    id          UUID    NOT NULL PRIMARY KEY,
    name        TEXT    NOT NULL UNIQUE,
    description TEXT    NOT NULL,
    created_at  BIGINT  NOT NULL
);
CREATE INDEX capabilities_in_order ON capabilities (created_at, id);

-- `granted_by` outlives the agent it names: a grant stands when its granter is deleted.
CREATE TABLE agent_capabilities (
    agent_id      UUID    NOT NULL REFERENCES agents (id) ON DELETE CASCADE,
    capability_id UUID    NOT NULL REFERENCES capabilities (id),
    granted_by    UUID,
    granted_at    BIGINT  NOT NULL,
    PRIMARY KEY (agent_id, capability_id)
);
CREATE INDEX agent_capabilities_by_capability ON agent_capabilities (capability_id, agent_id);

-- No reference to agents: records stay when an agent goes.
CREATE TABLE audit_log (
    seq           BIGINT  NOT NULL PRIMARY KEY,
    id            UUID    NOT NULL,
    at            BIGINT  NOT NULL,
    actor         UUID,
    subject       UUID,
    action        TEXT    NOT NULL,
    resource_type TEXT,
    resource_id   TEXT,
    details       TEXT    NOT NULL,
    ip            TEXT,
    success       INTEGER NOT NULL,
    request_id    TEXT,
    prev_hash     BYTEA   NOT NULL,
    hash          BYTEA   NOT NULL
);

CREATE TABLE audit_head (
    id   BIGINT  NOT NULL PRIMARY KEY CHECK (id = 1),
    seq  BIGINT  NOT NULL,
    hash BYTEA   NOT NULL
);
INSERT INTO audit_head (id, seq, hash) VALUES (1, 0, decode(repeat('00', 32), 'hex'));

CREATE TABLE signing_keys (
    kid                TEXT    NOT NULL PRIMARY KEY,
    algorithm          TEXT    NOT NULL,
    sealed_private_key BYTEA   NOT NULL,
    created_at         BIGINT  NOT NULL
);

CREATE TABLE imports (
    source      TEXT    NOT NULL PRIMARY KEY,
    imported_at BIGINT  NOT NULL
);
