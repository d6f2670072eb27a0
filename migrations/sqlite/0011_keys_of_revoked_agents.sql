-- Revoking an agent revokes every key that has not expired. Before, rotated keys kept their status.
UPDATE api_keys SET status = 'revoked', revoked_at = COALESCE(a.revoked_at, a.updated_at)
FROM agents a
WHERE a.id = api_keys.agent_id AND a.status = 'revoked' AND api_keys.status <> 'revoked'
    AND (api_keys.expires_at IS NULL OR api_keys.expires_at > COALESCE(a.revoked_at, a.updated_at));
