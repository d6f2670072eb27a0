-- The version of the index that a run was indexed with. Version 2 has terms for request IDs, reasons and IP addresses. Older
-- runs are indexed again in the background.
ALTER TABLE audit_runs ADD COLUMN version BIGINT NOT NULL DEFAULT 1;
-- The names of deleted agents, from the records of their deletion. Derived from the log, like the index.
CREATE TABLE audit_names (
    id   UUID NOT NULL PRIMARY KEY,
    name TEXT NOT NULL
);
-- The files that records were moved to. What was archived before this table existed has no file name.
CREATE TABLE audit_archives (
    last_seq    BIGINT NOT NULL PRIMARY KEY,
    first_seq   BIGINT NOT NULL,
    last_at     BIGINT,
    archived_at BIGINT,
    file        TEXT
);
INSERT INTO audit_archives (last_seq, first_seq) SELECT seq, 1 FROM audit_start WHERE id = 1 AND seq > 0;
-- The filters of the audit log that administrators saved.
CREATE TABLE audit_views (
    id         UUID    NOT NULL PRIMARY KEY,
    person     UUID    NOT NULL REFERENCES administrators (id) ON DELETE CASCADE,
    name       TEXT    NOT NULL,
    query      TEXT    NOT NULL,
    created_at BIGINT NOT NULL,
    UNIQUE (person, name)
);
