-- Whoever adds an agent may give it its number: to write the row again costs as much as to add it.
DROP TRIGGER agents_added;
CREATE TRIGGER agents_added AFTER INSERT ON agents WHEN NEW.number IS NOT NULL BEGIN
    INSERT INTO agents_to_index (number) VALUES (NEW.number) ON CONFLICT DO NOTHING;
END;
CREATE TRIGGER agents_added_without_number AFTER INSERT ON agents WHEN NEW.number IS NULL BEGIN
    UPDATE agents SET number = (SELECT COALESCE(MAX(number), 0) + 1 FROM agents) WHERE id = NEW.id;
    INSERT INTO agents_to_index (number) SELECT number FROM agents WHERE id = NEW.id ON CONFLICT DO NOTHING;
END;

-- The last record that was moved to an archive: the chain goes on from it.
CREATE TABLE audit_start (
    id   INTEGER NOT NULL PRIMARY KEY CHECK (id = 1),
    seq  INTEGER NOT NULL,
    hash BLOB    NOT NULL
) STRICT;
INSERT INTO audit_start (id, seq, hash) VALUES (1, 0, zeroblob(32));
