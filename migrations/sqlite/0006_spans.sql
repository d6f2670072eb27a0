-- Which runs of the audit log hold which terms: an index of its index, built in the background. Derived: no part of the chain.
CREATE TABLE audit_spans (
    place   INTEGER NOT NULL PRIMARY KEY,
    holders BLOB    NOT NULL
) STRICT;
