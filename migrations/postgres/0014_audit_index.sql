-- Summaries of the filter index, which lookups no longer need. The empty table stays for nodes of the previous version, which
-- read it until they are restarted.
TRUNCATE audit_spans;
