-- The account that failures are counted for, as a hash of the name that was given: a reset of its password forgives them.
ALTER TABLE sign_in_failures ADD COLUMN account_hash BLOB;
-- Right for what is counted of an account alone, and matches nothing else. What is counted of an account and a network ends
-- within a day.
UPDATE sign_in_failures SET account_hash = subject_hash;
CREATE INDEX sign_in_failures_by_account ON sign_in_failures (account_hash);

CREATE INDEX known_networks_by_network ON known_networks (network);
