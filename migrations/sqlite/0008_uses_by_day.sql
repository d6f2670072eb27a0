-- By the day: what is written on one day stands together, and what is forgotten is a range. No reference to the key: the counts of
-- one that is deleted are forgotten with their day.
CREATE TABLE uses_by_day (
    day    INTEGER NOT NULL,
    key_id BLOB    NOT NULL,
    uses   INTEGER NOT NULL,
    PRIMARY KEY (day, key_id)
) STRICT, WITHOUT ROWID;
INSERT INTO uses_by_day (day, key_id, uses) SELECT day, key_id, uses FROM api_key_uses ORDER BY day, key_id;
DROP TABLE api_key_uses;
ALTER TABLE uses_by_day RENAME TO api_key_uses;
