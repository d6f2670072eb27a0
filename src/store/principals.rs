//! An agent's authority: its status, credentials, grants and delegations, loaded together.

use sqlx::FromRow;
use uuid::Uuid;

use super::{
    db::{Conn, dispatch},
    stored,
};
use crate::{
    crypto::KeyHash,
    domain::{
        AgentId, AgentStatus, ApiKeyId, ApiKeyStatus, AuthFailure, CapabilityName, CapabilitySet, DelegationId, Error,
        FederatedIdentityId, KeyLimits, PublicKeyId, Result, Timestamp, TokenId, credential::api_key::Validity,
        token::Credential,
    },
};

/// The properties of an API key that decide whether it authenticates.
#[derive(Clone, Debug)]
pub struct Key {
    /// The key.
    pub id: ApiKeyId,
    /// Its status and end.
    pub validity: Validity,
    /// Its limits. `uses_left` may be out of date: the transaction that spends a use checks it.
    pub limits: KeyLimits,
}

/// An agent's authority.
#[derive(Clone, Debug)]
pub struct Principal {
    /// The agent.
    pub id: AgentId,
    /// Its status.
    pub status: AgentStatus,
    /// The epoch of its valid tokens. Tokens of earlier epochs are revoked.
    pub token_epoch: i64,
    /// Its granted capabilities.
    pub capabilities: CapabilitySet,
    /// The API keys that were valid when this was loaded. They may have expired since.
    pub keys: Box<[Key]>,
    /// Its public keys.
    pub public_keys: Box<[PublicKeyId]>,
    /// Its federated identities.
    pub federated_identities: Box<[FederatedIdentityId]>,
    /// Its tokens that were revoked one by one, sorted.
    pub revoked: Box<[TokenId]>,
    /// The agents that may act on its behalf, with the delegation that allows it.
    pub delegates: Box<[(AgentId, DelegationId)]>,
}

impl Principal {
    /// Returns an API key that was valid when this was loaded.
    #[must_use]
    pub fn key(&self, id: ApiKeyId) -> Option<&Key> {
        self.keys.iter().find(|key| key.id == id)
    }

    /// Checks that a credential authenticates the agent at `now`.
    ///
    /// # Errors
    /// The reason why it does not.
    pub fn check(&self, credential: Credential, now: Timestamp) -> Result<(), AuthFailure> {
        match credential {
            Credential::ApiKey(id) => self.key(id).ok_or(AuthFailure::KeyRevoked)?.validity.check(now),
            Credential::PublicKey(id) if self.public_keys.contains(&id) => Ok(()),
            Credential::FederatedIdentity(id) if self.federated_identities.contains(&id) => Ok(()),
            Credential::PublicKey(_) | Credential::FederatedIdentity(_) => Err(AuthFailure::KeyRevoked),
        }
    }

    /// Returns the delegation that lets `delegate` act on behalf of this agent.
    #[must_use]
    pub fn delegation_to(&self, delegate: AgentId) -> Option<DelegationId> {
        self.delegates.iter().find(|(agent, _)| *agent == delegate).map(|(_, delegation)| *delegation)
    }

    /// Returns true if this token of the agent was revoked.
    #[must_use]
    pub fn has_revoked(&self, token: TokenId) -> bool {
        self.revoked.binary_search(&token).is_ok()
    }
}

/// A part of an agent's authority.
#[derive(FromRow)]
struct PartRow {
    /// What the row is: `agent`, `key`, `capability`, …
    kind: String,
    other: Uuid,
    number: i64,
    /// The columns of a key. For other kinds, `id` is the identifier of the row and `status` its status or name.
    #[sqlx(flatten)]
    key: KeyRow,
}

#[derive(FromRow)]
struct KeyRow {
    id: Uuid,
    status: String,
    expires_at: Option<i64>,
    grace_ends_at: Option<i64>,
    #[sqlx(flatten)]
    limits: LimitsRow,
}

/// The columns with the limits of an API key.
#[derive(FromRow)]
pub(in crate::store) struct LimitsRow {
    scope: Option<String>,
    networks: Option<String>,
    token_life: Option<i64>,
    uses_left: Option<i64>,
}

impl TryFrom<LimitsRow> for KeyLimits {
    type Error = Error;

    fn try_from(row: LimitsRow) -> Result<Self> {
        let capabilities = row.scope.as_deref().map(Self::parse_capabilities).transpose();
        let life = row.token_life.map(u32::try_from).transpose();
        Ok(Self {
            capabilities: stored("scope of an API key", capabilities)?,
            networks: stored("network", Self::parse_networks(row.networks.as_deref().unwrap_or_default()))?,
            token_life: stored("token life", life)?,
            uses_left: row.uses_left,
        })
    }
}

impl TryFrom<KeyRow> for Key {
    type Error = Error;

    fn try_from(row: KeyRow) -> Result<Self> {
        let validity = Validity {
            status: stored("API key status", ApiKeyStatus::parse(&row.status))?,
            expires_at: row.expires_at.map(Timestamp::from_micros),
            grace_ends_at: row.grace_ends_at.map(Timestamp::from_micros),
        };
        Ok(Self { id: ApiKeyId(row.id), validity, limits: row.limits.try_into()? })
    }
}

/// The statement that reads all parts of an agent's authority in one round trip. `$agent` is an SQL expression for the
/// agent, and `$2` the current time. `$before` and `$after` are added around it. Revocations
/// count for a day after the token has expired: `revoked_tokens::KEPT`.
macro_rules! authority {
    ($before:literal, $agent:literal, $after:literal) => {
        concat!(
            $before,
            "SELECT 'agent' AS kind, id AS other, token_epoch AS number, id, status, CAST(NULL AS BIGINT) AS expires_at, \
            CAST(NULL AS BIGINT) AS grace_ends_at, CAST(NULL AS TEXT) AS scope, CAST(NULL AS TEXT) AS networks, \
            CAST(NULL AS BIGINT) AS token_life, CAST(NULL AS BIGINT) AS uses_left FROM agents WHERE id = ",
            $agent,
            " UNION ALL SELECT 'key', id, 0, id, status, expires_at, grace_ends_at, scope, networks, token_life, uses_left \
            FROM api_keys WHERE (status = 'active' OR (status = 'rotated' AND grace_ends_at > $2)) \
            AND (expires_at IS NULL OR expires_at > $2) AND agent_id = ",
            $agent,
            " UNION ALL SELECT 'capability', c.id, 0, c.id, c.name, NULL, NULL, NULL, NULL, NULL, NULL \
            FROM agent_capabilities g JOIN capabilities c ON c.id = g.capability_id WHERE g.agent_id = ",
            $agent,
            " UNION ALL SELECT 'public_key', id, 0, id, '', NULL, NULL, NULL, NULL, NULL, NULL \
            FROM public_keys WHERE agent_id = ",
            $agent,
            " UNION ALL SELECT 'federated_identity', id, 0, id, '', NULL, NULL, NULL, NULL, NULL, NULL \
            FROM federated_identities WHERE agent_id = ",
            $agent,
            " UNION ALL SELECT 'revoked', jti, 0, jti, '', NULL, NULL, NULL, NULL, NULL, NULL \
            FROM revoked_tokens WHERE expires_at > $2 - 86400000000 AND agent_id = ",
            $agent,
            " UNION ALL SELECT 'delegation', delegate_id, 0, id, '', NULL, NULL, NULL, NULL, NULL, NULL \
            FROM delegations WHERE agent_id = ",
            $agent,
            $after
        )
    };
}

/// Loads an agent's authority at `now`. Returns `None` if there is no such agent.
///
/// # Errors
/// If the database fails.
pub async fn load(conn: Conn<'_>, id: AgentId, now: Timestamp) -> Result<Option<Principal>> {
    const SQL: &str = authority!("", "$1", "");
    principal(dispatch!(conn, |c| sqlx::query_as(SQL).bind(id.0).bind(now.as_micros()).fetch_all(c).await)?)
}

/// Loads the API key with this hash, whether valid or not, and the authority of its agent at `now`. A key never moves
/// to another agent.
///
/// # Errors
/// If the database fails.
pub async fn load_by_key(conn: Conn<'_>, hash: &KeyHash, now: Timestamp) -> Result<Option<(ApiKeyId, Principal)>> {
    const SQL: &str = authority!(
        "WITH presented AS MATERIALIZED (SELECT id, agent_id FROM api_keys WHERE key_hash = $1) ",
        "(SELECT agent_id FROM presented)",
        " UNION ALL SELECT 'presented', agent_id, 0, id, '', NULL, NULL, NULL, NULL, NULL, NULL FROM presented"
    );
    let mut rows: Vec<PartRow> =
        dispatch!(conn, |c| sqlx::query_as(SQL).bind(hash.0.as_slice()).bind(now.as_micros()).fetch_all(c).await)?;
    let presented = rows.extract_if(.., |row| row.kind == "presented").next().map(|row| ApiKeyId(row.key.id));
    Ok(presented.zip(principal(rows)?))
}

fn principal(rows: Vec<PartRow>) -> Result<Option<Principal>> {
    let (mut agent, mut keys) = (None, Vec::new());
    let (mut capabilities, mut public_keys, mut federated_identities) = (Vec::new(), Vec::new(), Vec::new());
    let (mut revoked, mut delegates) = (Vec::new(), Vec::new());
    for PartRow { kind, other, number, key: row } in rows {
        match kind.as_str() {
            "agent" => {
                agent = Some((AgentId(row.id), stored("agent status", AgentStatus::parse(&row.status))?, number));
            }
            "key" => keys.push(Key::try_from(row)?),
            "capability" => capabilities.push(stored("capability name", CapabilityName::parse(&row.status))?),
            "public_key" => public_keys.push(PublicKeyId(row.id)),
            "federated_identity" => federated_identities.push(FederatedIdentityId(row.id)),
            "revoked" => revoked.push(TokenId(row.id)),
            _ => delegates.push((AgentId(other), DelegationId(row.id))),
        }
    }
    let Some((id, status, token_epoch)) = agent else { return Ok(None) };
    revoked.sort_unstable();
    Ok(Some(Principal {
        id,
        status,
        token_epoch,
        capabilities: capabilities.into_iter().collect(),
        keys: keys.into(),
        public_keys: public_keys.into(),
        federated_identities: federated_identities.into(),
        revoked: revoked.into(),
        delegates: delegates.into(),
    }))
}

/// Returns an API key, whether valid or not.
///
/// # Errors
/// If the database fails.
pub async fn key(conn: Conn<'_>, id: ApiKeyId) -> Result<Option<Key>> {
    const SQL: &str = "SELECT * FROM api_keys WHERE id = $1";
    let row: Option<KeyRow> = dispatch!(conn, |c| sqlx::query_as(SQL).bind(id.0).fetch_optional(c).await)?;
    row.map(Key::try_from).transpose()
}
