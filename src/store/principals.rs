//! What decides whether an agent may act: its status, keys and grants, loaded together.

use sqlx::FromRow;
use uuid::Uuid;

use super::{
    credentials::api_keys::LimitsRow,
    db::{Conn, on},
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

/// An API key as far as it authenticates.
#[derive(Clone, Debug)]
pub struct Key {
    /// The key.
    pub id: ApiKeyId,
    /// Until when it authenticates.
    pub validity: Validity,
    /// What it may be used for; `uses_left` is as of when this was loaded.
    pub limits: KeyLimits,
}

/// An agent as far as its authority goes.
#[derive(Clone, Debug)]
pub struct Principal {
    /// The agent.
    pub id: AgentId,
    /// Where it is in its life.
    pub status: AgentStatus,
    /// Which generation of its tokens is valid.
    pub token_epoch: i64,
    /// What it may do.
    pub capabilities: CapabilitySet,
    /// The keys that authenticated it when this was loaded; they may have ended since.
    pub keys: Box<[Key]>,
    /// The public keys that authenticate it.
    pub public_keys: Box<[PublicKeyId]>,
    /// The foreign issuers that vouch for it.
    pub federated_identities: Box<[FederatedIdentityId]>,
    /// The tokens that were revoked before their time, in order.
    pub revoked: Box<[TokenId]>,
    /// Who may act for it.
    pub delegates: Box<[(AgentId, DelegationId)]>,
}

impl Principal {
    /// One of the keys that authenticated the agent when this was loaded.
    #[must_use]
    pub fn key(&self, id: ApiKeyId) -> Option<&Key> {
        self.keys.iter().find(|key| key.id == id)
    }

    /// Whether a credential authenticates the agent at `now`.
    ///
    /// # Errors
    /// Why it does not.
    pub fn check(&self, credential: Credential, now: Timestamp) -> Result<(), AuthFailure> {
        match credential {
            Credential::ApiKey(id) => self.key(id).ok_or(AuthFailure::KeyRevoked)?.validity.check(now),
            Credential::PublicKey(id) if self.public_keys.contains(&id) => Ok(()),
            Credential::FederatedIdentity(id) if self.federated_identities.contains(&id) => Ok(()),
            Credential::PublicKey(_) | Credential::FederatedIdentity(_) => Err(AuthFailure::KeyRevoked),
        }
    }

    /// What lets another agent act for this one.
    #[must_use]
    pub fn delegation_to(&self, delegate: AgentId) -> Option<DelegationId> {
        self.delegates.iter().find(|(agent, _)| *agent == delegate).map(|(_, delegation)| *delegation)
    }

    /// Whether one of the agent's tokens was revoked before its time.
    #[must_use]
    pub fn has_revoked(&self, token: TokenId) -> bool {
        self.revoked.binary_search(&token).is_ok()
    }
}

/// One of the things that an agent's authority is made of.
#[derive(FromRow)]
struct StandingRow {
    what: String,
    other: Uuid,
    number: i64,
    /// A key; of anything else, its identifier, and in place of the status its own status or name.
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

/// All that an agent's authority is made of, as one statement: each is a round trip. `$agent` is whose, `$2` is now; `$with` and
/// `$also` stand around it.
macro_rules! standing {
    ($with:literal, $agent:literal, $also:literal) => {
        concat!(
            $with,
            "SELECT 'agent' AS what, id AS other, token_epoch AS number, id, status, CAST(NULL AS BIGINT) AS expires_at, \
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
            FROM revoked_tokens WHERE expires_at > $2 AND agent_id = ",
            $agent,
            " UNION ALL SELECT 'delegation', delegate_id, 0, id, '', NULL, NULL, NULL, NULL, NULL, NULL \
            FROM delegations WHERE agent_id = ",
            $agent,
            $also
        )
    };
}

/// Loads an agent's authority as of `now`.
///
/// # Errors
/// When the database fails.
pub async fn load(conn: Conn<'_>, id: AgentId, now: Timestamp) -> Result<Option<Principal>> {
    const STANDING: &str = standing!("", "$1", "");
    principal(on!(conn, |c| sqlx::query_as(STANDING).bind(id.0).bind(now.as_micros()).fetch_all(c).await?))
}

/// The key with this hash, which may have ended, and the authority of its agent as of `now`. Whose a key is never changes.
///
/// # Errors
/// When the database fails.
pub async fn load_by_key(conn: Conn<'_>, hash: &KeyHash, now: Timestamp) -> Result<Option<(ApiKeyId, Principal)>> {
    const STANDING: &str = standing!(
        "WITH presented AS MATERIALIZED (SELECT id, agent_id FROM api_keys WHERE key_hash = $1) ",
        "(SELECT agent_id FROM presented)",
        " UNION ALL SELECT 'presented', agent_id, 0, id, '', NULL, NULL, NULL, NULL, NULL, NULL FROM presented"
    );
    let mut rows: Vec<StandingRow> =
        on!(conn, |c| sqlx::query_as(STANDING).bind(hash.0.as_slice()).bind(now.as_micros()).fetch_all(c).await?);
    let presented = rows.extract_if(.., |row| row.what == "presented").next().map(|row| ApiKeyId(row.key.id));
    Ok(presented.zip(principal(rows)?))
}

fn principal(rows: Vec<StandingRow>) -> Result<Option<Principal>> {
    let (mut agent, mut keys) = (None, Vec::new());
    let (mut capabilities, mut public_keys, mut federated_identities) = (Vec::new(), Vec::new(), Vec::new());
    let (mut revoked, mut delegates) = (Vec::new(), Vec::new());
    for StandingRow { what, other, number, key: row } in rows {
        match what.as_str() {
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

/// A key, also when it has ended.
///
/// # Errors
/// When the database fails.
pub async fn key(conn: Conn<'_>, id: ApiKeyId) -> Result<Option<Key>> {
    const SQL: &str = "SELECT * FROM api_keys WHERE id = $1";
    let row: Option<KeyRow> = on!(conn, |c| sqlx::query_as(SQL).bind(id.0).fetch_optional(c).await?);
    row.map(Key::try_from).transpose()
}
