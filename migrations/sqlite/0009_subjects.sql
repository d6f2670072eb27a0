-- Whose tokens an identity is for, where it says so: all agents of a fleet may trust the same issuer.
ALTER TABLE federated_identities ADD COLUMN subject TEXT;
UPDATE federated_identities SET subject = json_extract(claims, '$.sub');
DROP INDEX federated_identities_by_issuer;
CREATE INDEX federated_identities_by_subject ON federated_identities (issuer, subject);
