-- Which runs of the audit log hold which terms: an index of its index, built in the background. Derived: no part of the chain.
CREATE TABLE audit_spans (
    place   BIGINT NOT NULL PRIMARY KEY,
    holders BYTEA  NOT NULL
);
-- Hashes do not compress, and what is stored elsewhere costs another read.
ALTER TABLE audit_spans ALTER COLUMN holders SET STORAGE MAIN;
