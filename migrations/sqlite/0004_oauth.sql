-- The token service: what tokens may be asked for, and which were revoked before they expired.

-- What tokens can be for besides AIMS itself. `scope` names the capabilities that they may carry, separated by spaces.
CREATE TABLE resources (
    id         BLOB    NOT NULL PRIMARY KEY,
    identifier TEXT    NOT NULL UNIQUE,
    name       TEXT    NOT NULL,
    scope      TEXT    NOT NULL,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL
) STRICT;
CREATE INDEX resources_in_order ON resources (created_at, id);

-- Single tokens that ended before their time; forgotten when they would have expired anyway.
CREATE TABLE revoked_tokens (
    agent_id   BLOB    NOT NULL REFERENCES agents (id) ON DELETE CASCADE,
    jti        BLOB    NOT NULL,
    expires_at INTEGER NOT NULL,
    PRIMARY KEY (agent_id, jti)
) STRICT, WITHOUT ROWID;
CREATE INDEX revoked_tokens_by_expiry ON revoked_tokens (expires_at);

-- A key is published before it signs and after it signed: `activated_at` is empty for the next one, `retired_at` for the
-- next and for the one that signs.
ALTER TABLE signing_keys ADD COLUMN activated_at INTEGER;
ALTER TABLE signing_keys ADD COLUMN retired_at INTEGER;
UPDATE signing_keys SET activated_at = created_at;

-- Public keys by which agents authenticate (RFC 7523); `jwk` is the JSON Web Key that was registered, its public members.
CREATE TABLE public_keys (
    id         BLOB    NOT NULL PRIMARY KEY,
    agent_id   BLOB    NOT NULL REFERENCES agents (id) ON DELETE CASCADE,
    thumbprint TEXT    NOT NULL,
    kid        TEXT    NOT NULL,
    jwk        TEXT    NOT NULL,
    created_at INTEGER NOT NULL,
    UNIQUE (agent_id, thumbprint)
) STRICT;

-- What may be used once, until it would have expired: the hash of an assertion's subject and `jti`.
CREATE TABLE spent_assertions (
    hash       BLOB    NOT NULL PRIMARY KEY,
    expires_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX spent_assertions_by_expiry ON spent_assertions (expires_at);

-- Who may act for whom (RFC 8693): the delegate for the agent.
CREATE TABLE delegations (
    id          BLOB    NOT NULL PRIMARY KEY,
    agent_id    BLOB    NOT NULL REFERENCES agents (id) ON DELETE CASCADE,
    delegate_id BLOB    NOT NULL REFERENCES agents (id) ON DELETE CASCADE,
    created_at  INTEGER NOT NULL,
    UNIQUE (agent_id, delegate_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX delegations_by_delegate ON delegations (delegate_id);

-- Tokens by which one agent acts for another, until they would have expired.
CREATE TABLE delegated_tokens (
    jti        BLOB    NOT NULL PRIMARY KEY,
    audience   TEXT    NOT NULL,
    issued_at  INTEGER NOT NULL,
    expires_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX delegated_tokens_by_expiry ON delegated_tokens (expires_at);

-- What must hold of every agent of such a token's chain: the subject at place 0, who acts now at the last. Rows outlive the
-- agents that they name: a chain that lost a link must not look like a shorter one.
CREATE TABLE delegated_token_links (
    jti             BLOB    NOT NULL REFERENCES delegated_tokens (jti) ON DELETE CASCADE,
    place           INTEGER NOT NULL,
    agent_id        BLOB    NOT NULL,
    credential_type TEXT    NOT NULL,
    credential_id   BLOB    NOT NULL,
    token_epoch     INTEGER NOT NULL,
    presented       BLOB,
    delegation_id   BLOB,
    obtained        BLOB,
    PRIMARY KEY (jti, place)
) STRICT, WITHOUT ROWID;
CREATE INDEX delegated_token_links_by_agent ON delegated_token_links (agent_id, jti);

-- What a key may be used for at most; set when it is made. `scope` and `networks` are separated by spaces, `token_life` is in
-- seconds; empty means no limit.
ALTER TABLE api_keys ADD COLUMN scope TEXT;
ALTER TABLE api_keys ADD COLUMN networks TEXT;
ALTER TABLE api_keys ADD COLUMN token_life INTEGER;
ALTER TABLE api_keys ADD COLUMN uses_left INTEGER;

-- Foreign issuers whose tokens authenticate an agent; `claims` is a JSON object of what else they must say.
CREATE TABLE federated_identities (
    id         BLOB    NOT NULL PRIMARY KEY,
    agent_id   BLOB    NOT NULL REFERENCES agents (id) ON DELETE CASCADE,
    issuer     TEXT    NOT NULL,
    jwks_uri   TEXT,
    audience   TEXT    NOT NULL,
    claims     TEXT    NOT NULL,
    created_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX federated_identities_by_agent ON federated_identities (agent_id);
CREATE INDEX federated_identities_by_issuer ON federated_identities (issuer);
