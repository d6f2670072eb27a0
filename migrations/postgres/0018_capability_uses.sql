-- When each agent last used each capability that it holds, and how often per day. Empty: not since this was counted.
ALTER TABLE capabilities ADD COLUMN last_used_at BIGINT;
ALTER TABLE agent_capabilities ADD COLUMN last_used_at BIGINT;

-- By the day, so that old counts are a range. No references: the counts of what is deleted are forgotten with their day.
CREATE TABLE capability_uses (
    day           BIGINT NOT NULL,
    capability_id UUID   NOT NULL,
    agent_id      UUID   NOT NULL,
    uses          BIGINT NOT NULL,
    PRIMARY KEY (day, capability_id, agent_id)
);
