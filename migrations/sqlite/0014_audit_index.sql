-- Summaries of the filter index, which lookups no longer need.
DROP TABLE audit_spans;
