-- Indexes over many agents take longer than a request may.
SET LOCAL statement_timeout = 0;

-- The order of the last use, under every filter.
CREATE INDEX agents_by_state_and_last_use ON agents (status, agent_type, last_used_at, id);
CREATE INDEX agents_by_owner_and_last_use ON agents (owner, status, agent_type, last_used_at, id);

-- Operations on many agents, and what they changed, for as long as they can be undone.
CREATE TABLE bulk_acts (
    id     UUID   NOT NULL PRIMARY KEY,
    actor  UUID   NOT NULL,
    kind   TEXT   NOT NULL CHECK (kind IN ('suspend', 'grant', 'transfer')),
    -- The capability that was granted, or the new owner.
    target TEXT,
    at     BIGINT NOT NULL
);
CREATE INDEX bulk_acts_in_order ON bulk_acts (at);
CREATE TABLE bulk_act_agents (
    act_id   UUID   NOT NULL REFERENCES bulk_acts (id) ON DELETE CASCADE,
    agent_id UUID   NOT NULL REFERENCES agents (id) ON DELETE CASCADE,
    at       BIGINT NOT NULL,
    -- The owner before a transfer.
    previous TEXT,
    PRIMARY KEY (act_id, agent_id)
);
CREATE INDEX bulk_act_agents_by_agent ON bulk_act_agents (agent_id);
