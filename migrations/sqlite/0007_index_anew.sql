-- What the index of the audit log holds is laid out anew, and spans of runs say of rare terms where they are. It is derived, and
-- built again in the background.
DELETE FROM audit_index;
DELETE FROM audit_spans;
DELETE FROM audit_runs;
