-- What each agent does, by the hour (span 1) and by the day (span 24); `at` counts spans since the epoch. No reference to
-- the agent: the counts of one that is deleted are forgotten with their day.
CREATE TABLE agent_activity (
    span     INTEGER NOT NULL,
    at       INTEGER NOT NULL,
    agent_id BLOB    NOT NULL,
    issued   INTEGER NOT NULL,
    refused  INTEGER NOT NULL,
    PRIMARY KEY (span, at, agent_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX agent_activity_by_issued ON agent_activity (span, at, issued) WHERE issued > 0;
CREATE INDEX agent_activity_by_refused ON agent_activity (span, at, refused) WHERE refused > 0;

-- Issued tokens and refused requests by their event and, of a refusal, the reason that its record names.
CREATE TABLE activity_kinds (
    hour   INTEGER NOT NULL,
    action TEXT    NOT NULL,
    reason TEXT    NOT NULL,
    times  INTEGER NOT NULL,
    PRIMARY KEY (hour, action, reason)
) STRICT, WITHOUT ROWID;

-- When the agent last got a token, to the minute: an index on the exact time would move with every token. 0 for never.
ALTER TABLE agents ADD COLUMN last_used_at INTEGER NOT NULL DEFAULT 0;
UPDATE agents SET last_used_at = used.last_used_at
FROM (SELECT agent_id, MAX(last_used_at) AS last_used_at FROM api_keys WHERE last_used_at IS NOT NULL GROUP BY agent_id) AS used
WHERE agents.id = used.agent_id;
CREATE INDEX agents_by_last_use ON agents (last_used_at, id);

-- What a person dismissed on the overview, or ticked by hand, and until when.
CREATE TABLE overview_marks (
    administrator_id BLOB    NOT NULL REFERENCES administrators (id) ON DELETE CASCADE,
    item             TEXT    NOT NULL,
    until            INTEGER NOT NULL,
    PRIMARY KEY (administrator_id, item)
) STRICT, WITHOUT ROWID;
