-- Which master key seals new values, by its ID. No row: the master key was never rotated.
CREATE TABLE master_key (
    id           INTEGER NOT NULL PRIMARY KEY CHECK (id = 1),
    key_id       TEXT    NOT NULL,
    previous_id  TEXT    NOT NULL,
    rotated_at   INTEGER NOT NULL,
    completed_at INTEGER
) STRICT;
