-- What listings, searches and audit filters need to stay quick with a million agents and ten million records.

-- Every order under every filter: a listing without a status or a type merges the few ranges that remain.
DROP INDEX agents_by_owner;
CREATE INDEX agents_by_state ON agents (status, agent_type, created_at, id);
CREATE INDEX agents_by_state_and_name ON agents (status, agent_type, name);
CREATE INDEX agents_by_owner ON agents (owner, status, agent_type, created_at, id);
CREATE INDEX agents_by_owner_and_name ON agents (owner, status, agent_type, name);

-- What the text index calls an agent. Not the rowid: `VACUUM` may give rows others.
ALTER TABLE agents ADD COLUMN number INTEGER;
UPDATE agents SET number = rowid;
CREATE UNIQUE INDEX agents_by_number ON agents (number);

-- Which agents hold which three characters in a row. Without positions it is a fifth of the size; what it finds is
-- looked at before it is shown.
CREATE VIRTUAL TABLE agents_text USING fts5 (
    name, owner, description, tokenize = 'trigram', content = '', contentless_delete = 1, detail = 'none'
);
INSERT INTO agents_text (rowid, name, owner, description) SELECT number, name, owner, description FROM agents;

-- Agents that the writer brings up to date in the text index before it commits: each savepoint would make the index
-- write out what it holds, so rows do not go into it one by one.
CREATE TABLE agents_to_index (
    number INTEGER NOT NULL PRIMARY KEY
) STRICT;
CREATE TRIGGER agents_added AFTER INSERT ON agents BEGIN
    UPDATE agents SET number = (SELECT COALESCE(MAX(number), 0) + 1 FROM agents) WHERE id = NEW.id;
    INSERT INTO agents_to_index (number) SELECT number FROM agents WHERE id = NEW.id ON CONFLICT DO NOTHING;
END;
CREATE TRIGGER agents_changed AFTER UPDATE OF name, owner, description ON agents BEGIN
    INSERT INTO agents_to_index (number) VALUES (NEW.number) ON CONFLICT DO NOTHING;
END;
CREATE TRIGGER agents_removed AFTER DELETE ON agents BEGIN
    INSERT INTO agents_to_index (number) VALUES (OLD.number) ON CONFLICT DO NOTHING;
END;

-- The index of the audit log, built in the background from complete runs of records. Derived: no part of the chain.
CREATE TABLE audit_runs (
    run      INTEGER NOT NULL PRIMARY KEY,
    first_at INTEGER NOT NULL,
    last_at  INTEGER NOT NULL
) STRICT;
CREATE TABLE audit_index (
    place    INTEGER NOT NULL PRIMARY KEY,
    postings BLOB    NOT NULL
) STRICT;
