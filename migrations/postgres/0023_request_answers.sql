-- The answers to requests with an Idempotency-Key, kept for a day for clients that send the request again. An answer is
-- sealed under a key that only the client has, and `id` is a hash that does not reveal it.
CREATE TABLE request_answers (
    id         BYTEA   NOT NULL PRIMARY KEY,
    sealed     BYTEA   NOT NULL,
    expires_at BIGINT  NOT NULL
);

CREATE INDEX request_answers_by_expiry ON request_answers (expires_at);
