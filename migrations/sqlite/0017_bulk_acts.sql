-- The order of the last use, under every filter.
CREATE INDEX agents_by_state_and_last_use ON agents (status, agent_type, last_used_at, id);
CREATE INDEX agents_by_owner_and_last_use ON agents (owner, status, agent_type, last_used_at, id);

-- Operations on many agents, and what they changed, for as long as they can be undone.
CREATE TABLE bulk_acts (
    id     BLOB    NOT NULL PRIMARY KEY,
    actor  BLOB    NOT NULL,
    kind   TEXT    NOT NULL CHECK (kind IN ('suspend', 'grant', 'transfer')),
    -- The capability that was granted, or the new owner.
    target TEXT,
    at     INTEGER NOT NULL
) STRICT;
CREATE INDEX bulk_acts_in_order ON bulk_acts (at);
CREATE TABLE bulk_act_agents (
    act_id   BLOB    NOT NULL REFERENCES bulk_acts (id) ON DELETE CASCADE,
    agent_id BLOB    NOT NULL REFERENCES agents (id) ON DELETE CASCADE,
    at       INTEGER NOT NULL,
    -- The owner before a transfer.
    previous TEXT,
    PRIMARY KEY (act_id, agent_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX bulk_act_agents_by_agent ON bulk_act_agents (agent_id);
