-- Finds names that a reader may take for one another: they differ only in case, or in characters that are easily confused.
-- No index is unique: existing names that collide stay. The transaction that adds a name looks for such names.

-- Indexes over many agents take longer than a request may.
SET LOCAL statement_timeout = 0;

-- LOWER follows ASCII, whatever the database's own collation says.
ALTER TABLE capabilities ALTER COLUMN name TYPE TEXT COLLATE "C";

CREATE INDEX agents_by_lower_name ON agents (LOWER(name));
CREATE INDEX agents_by_shape ON agents (
    (REPLACE(REPLACE(REPLACE(REPLACE(REPLACE(LOWER(REPLACE(name, 'I', 'l')), '1', 'l'), '|', 'l'), '0', 'o'), '`', ''''), 'm', 'rn'))
);
CREATE INDEX capabilities_by_lower_name ON capabilities (LOWER(name));
CREATE INDEX capabilities_by_shape ON capabilities (
    (REPLACE(REPLACE(REPLACE(REPLACE(REPLACE(LOWER(REPLACE(name, 'I', 'l')), '1', 'l'), '|', 'l'), '0', 'o'), '`', ''''), 'm', 'rn'))
);
