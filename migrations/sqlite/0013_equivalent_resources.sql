-- The same for all equivalent identifiers. The service adds it to resources that have none when it starts.
ALTER TABLE resources ADD COLUMN normal_form TEXT;
CREATE UNIQUE INDEX resources_by_normal_form ON resources (normal_form);
