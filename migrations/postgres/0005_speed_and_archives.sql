-- The last record that was moved to an archive: the chain goes on from it.
CREATE TABLE audit_start (
    id   BIGINT NOT NULL PRIMARY KEY CHECK (id = 1),
    seq  BIGINT NOT NULL,
    hash BYTEA  NOT NULL
);
INSERT INTO audit_start (id, seq, hash) VALUES (1, 0, decode(repeat('00', 32), 'hex'));
