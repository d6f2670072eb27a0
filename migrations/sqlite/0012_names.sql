-- Finds names that a reader may take for one another: they differ only in case, or in characters that are easily confused.
-- No index is unique: existing names that collide stay. The transaction that adds a name looks for such names.
CREATE INDEX agents_by_lower_name ON agents (LOWER(name));
CREATE INDEX agents_by_shape ON agents (
    REPLACE(REPLACE(REPLACE(REPLACE(REPLACE(LOWER(REPLACE(name, 'I', 'l')), '1', 'l'), '|', 'l'), '0', 'o'), '`', ''''), 'm', 'rn')
);
CREATE INDEX capabilities_by_lower_name ON capabilities (LOWER(name));
CREATE INDEX capabilities_by_shape ON capabilities (
    REPLACE(REPLACE(REPLACE(REPLACE(REPLACE(LOWER(REPLACE(name, 'I', 'l')), '1', 'l'), '|', 'l'), '0', 'o'), '`', ''''), 'm', 'rn')
);
