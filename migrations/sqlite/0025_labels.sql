-- Keys and values to select agents by.
CREATE TABLE agent_labels (
    agent_id   BLOB    NOT NULL REFERENCES agents (id) ON DELETE CASCADE,
    key        TEXT    NOT NULL,
    value      TEXT    NOT NULL,
    -- That of the agent, which never changes: the index has the agents with a label in the order of their creation.
    created_at INTEGER NOT NULL,
    PRIMARY KEY (agent_id, key)
) STRICT, WITHOUT ROWID;
CREATE INDEX agent_labels_in_order ON agent_labels (key, value, created_at, agent_id);

-- Operations on labels can be undone, too. SQLite cannot change a constraint, so the tables are copied.
CREATE TABLE new_bulk_acts (
    id     BLOB    NOT NULL PRIMARY KEY,
    actor  BLOB    NOT NULL,
    kind   TEXT    NOT NULL CHECK (kind IN ('suspend', 'grant', 'transfer', 'label')),
    -- The capability that was granted, the new owner, or the change of labels.
    target TEXT,
    at     INTEGER NOT NULL
) STRICT;
CREATE TABLE new_bulk_act_agents (
    act_id   BLOB    NOT NULL REFERENCES new_bulk_acts (id) ON DELETE CASCADE,
    agent_id BLOB    NOT NULL REFERENCES agents (id) ON DELETE CASCADE,
    at       INTEGER NOT NULL,
    -- The owner before a transfer, or the labels before a change of them.
    previous TEXT,
    PRIMARY KEY (act_id, agent_id)
) STRICT, WITHOUT ROWID;
INSERT INTO new_bulk_acts (id, actor, kind, target, at) SELECT id, actor, kind, target, at FROM bulk_acts;
INSERT INTO new_bulk_act_agents (act_id, agent_id, at, previous) SELECT act_id, agent_id, at, previous FROM bulk_act_agents;
DROP TABLE bulk_act_agents;
DROP TABLE bulk_acts;
ALTER TABLE new_bulk_acts RENAME TO bulk_acts;
ALTER TABLE new_bulk_act_agents RENAME TO bulk_act_agents;
CREATE INDEX bulk_acts_in_order ON bulk_acts (at);
CREATE INDEX bulk_act_agents_by_agent ON bulk_act_agents (agent_id);
