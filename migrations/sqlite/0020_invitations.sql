-- Invitations that were neither accepted nor withdrawn. Only the hash of the link's token is stored.
CREATE TABLE invitations (
    id         BLOB    NOT NULL PRIMARY KEY,
    token_hash BLOB    NOT NULL UNIQUE,
    recipient  TEXT    NOT NULL UNIQUE,
    role       TEXT    NOT NULL CHECK (role IN ('viewer', 'operator', 'owner')),
    invited_by BLOB    NOT NULL REFERENCES administrators (id) ON DELETE CASCADE,
    created_at INTEGER NOT NULL,
    expires_at INTEGER NOT NULL
) STRICT;

-- The public URL of the service that used this database last, for commands that run without its settings.
CREATE TABLE service_address (
    id         INTEGER NOT NULL PRIMARY KEY CHECK (id = 1),
    public_url TEXT    NOT NULL
) STRICT;
