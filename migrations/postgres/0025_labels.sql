-- Keys and values to select agents by.
CREATE TABLE agent_labels (
    agent_id   UUID   NOT NULL REFERENCES agents (id) ON DELETE CASCADE,
    key        TEXT   COLLATE "C" NOT NULL,
    value      TEXT   COLLATE "C" NOT NULL,
    -- That of the agent, which never changes: the index has the agents with a label in the order of their creation.
    created_at BIGINT NOT NULL,
    PRIMARY KEY (agent_id, key)
);
CREATE INDEX agent_labels_in_order ON agent_labels (key, value, created_at, agent_id);

-- Operations on labels can be undone, too.
ALTER TABLE bulk_acts DROP CONSTRAINT bulk_acts_kind_check;
ALTER TABLE bulk_acts ADD CONSTRAINT bulk_acts_kind_check CHECK (kind IN ('suspend', 'grant', 'transfer', 'label'));
