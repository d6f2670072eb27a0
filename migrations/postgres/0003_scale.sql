-- What listings, searches and audit filters need to stay quick with a million agents and ten million records.

-- Indexes over many agents take longer than a request may.
SET LOCAL statement_timeout = 0;

CREATE EXTENSION IF NOT EXISTS pg_trgm;

-- Sorted by their bytes, as SQLite does it.
ALTER TABLE agents
    ALTER COLUMN name TYPE TEXT COLLATE "C",
    ALTER COLUMN owner TYPE TEXT COLLATE "C",
    ALTER COLUMN status TYPE TEXT COLLATE "C",
    ALTER COLUMN agent_type TYPE TEXT COLLATE "C";

-- Every order under every filter: a listing without a status or a type merges the few ranges that remain.
DROP INDEX agents_by_owner;
CREATE INDEX agents_by_state ON agents (status, agent_type, created_at, id);
CREATE INDEX agents_by_state_and_name ON agents (status, agent_type, name);
CREATE INDEX agents_by_owner ON agents (owner, status, agent_type, created_at, id);
CREATE INDEX agents_by_owner_and_name ON agents (owner, status, agent_type, name);

-- One text of three, in the database's own collation, which decides about the case of letters. No text that can be
-- searched for holds the character between them.
CREATE INDEX agents_text ON agents
    USING gin (((name || E'\x01' || owner || E'\x01' || description) COLLATE "default") gin_trgm_ops);

-- The index of the audit log, built in the background from complete runs of records. Derived: no part of the chain.
CREATE TABLE audit_runs (
    run      BIGINT  NOT NULL PRIMARY KEY,
    first_at BIGINT  NOT NULL,
    last_at  BIGINT  NOT NULL
);
CREATE TABLE audit_index (
    place    BIGINT  NOT NULL PRIMARY KEY,
    postings BYTEA   NOT NULL
);
-- Hashes do not compress, and what is stored elsewhere costs another read.
ALTER TABLE audit_index ALTER COLUMN postings SET STORAGE MAIN;
