-- The scheduled backup that a node makes now or made last, and the results of the last backups. A backup leaves this table
-- out: a restored database was not backed up yet.
CREATE TABLE backup_state (
    id         BIGINT NOT NULL PRIMARY KEY CHECK (id = 1),
    -- The time for which the last scheduled backup was due.
    slot       BIGINT,
    -- When the node that makes it last said so. Empty when it is done.
    working_at BIGINT,
    -- The last backup, scheduled or by hand: when its data was read, and its size in bytes.
    made_at    BIGINT,
    bytes      BIGINT,
    -- The last scheduled backup that failed, unless a later one succeeded.
    failed_at  BIGINT,
    failure    TEXT
);
INSERT INTO backup_state (id) VALUES (1);
