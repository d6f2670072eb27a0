-- By the day: what is written on one day stands together, and what is forgotten is a range. No reference to the key: the counts of
-- one that is deleted are forgotten with their day.
ALTER TABLE api_key_uses DROP CONSTRAINT api_key_uses_key_id_fkey;
ALTER TABLE api_key_uses DROP CONSTRAINT api_key_uses_pkey;
ALTER TABLE api_key_uses ADD PRIMARY KEY (day, key_id);
