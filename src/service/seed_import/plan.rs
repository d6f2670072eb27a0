//! The plan of an import: the predecessor's rows, parsed and with resolved references.

use std::{
    collections::{HashMap, HashSet},
    fmt::Display,
    hash::Hash,
    time::Duration,
};

use sha2::{Digest, Sha256};
use uuid::{Builder, Uuid};

use super::BadRow;
use crate::{
    crypto::KeyHash,
    domain::{
        Agent, AgentId, AgentName, AgentStatus, AgentType, ApiKey, ApiKeyId, ApiKeyStatus, Capability, CapabilityId,
        CapabilityName, Invalid, KeyLimits, Timestamp,
        agent::labels::Labels,
        audit::{GENESIS, Record},
    },
    store::seed::{AgentRow, ApiKeyRow, AuditRow, CapabilityRow, Contents, GrantRow},
};

type Result<T> = std::result::Result<T, BadRow>;

/// The rows as domain types. Values that must be unique are unique.
pub(super) struct Plan {
    pub(super) agents: Vec<Agent>,
    pub(super) api_keys: Vec<(ApiKey, KeyHash)>,
    pub(super) capabilities: Vec<Capability>,
    pub(super) grants: Vec<Grant>,
    /// Sorted by time.
    pub(super) audit: Vec<Record>,
}

pub(super) struct Grant {
    pub(super) agent: AgentId,
    pub(super) capability: CapabilityId,
    pub(super) granted_by: Option<AgentId>,
    pub(super) at: Timestamp,
}

impl Plan {
    /// Parses all rows. A rotated key works until `grace` after its rotation.
    ///
    /// # Errors
    /// The first row that cannot be imported.
    pub(super) fn parse(contents: Contents, grace: Duration) -> Result<Self> {
        let agents = agents(contents.agents)?;
        let known = agents.iter().map(|agent| agent.id).collect();
        let mut api_keys = api_keys(contents.api_keys, &known, grace)?;
        revoke_with_agents(&mut api_keys, &agents);
        let capabilities = capabilities(contents.capabilities)?;
        let registered = capabilities.iter().map(|capability| capability.id).collect();
        let grants = grants(contents.grants, &known, &registered)?;
        let owners = api_keys.iter().map(|(key, _)| (key.id, key.agent_id)).collect();
        let audit = audit(contents.audit, &owners)?;
        Ok(Self { agents, api_keys, capabilities, grants, audit })
    }
}

fn agents(rows: Vec<AgentRow>) -> Result<Vec<Agent>> {
    let (mut ids, mut names) = (Unique::default(), Unique::default());
    let agent = |row: AgentRow| {
        let at = RowPosition::of(AgentRow::TABLE, row.row_number, row.id.as_deref());
        let id = agent_id(&at.filled("id", row.id)?);
        ids.add(id, &at, "id")?;
        let name = at.parsed("name", row.name, AgentName::parse)?;
        names.add(name.clone(), &at, "name")?;
        let created_at = at.time("created_at", row.created_at)?;
        Ok(Agent {
            id,
            name,
            description: at.text("description", row.description)?.unwrap_or_default(),
            owner: at.text("owner", row.owner)?.unwrap_or_default(),
            status: at.parsed("status", row.status, AgentStatus::parse)?,
            agent_type: at.parsed("agent_type", row.agent_type, AgentType::parse)?,
            metadata_json: at.text("metadata_json", row.metadata_json)?.unwrap_or_else(empty_document),
            labels: Labels::default(),
            created_at,
            updated_at: at.optional_time("updated_at", row.updated_at)?.unwrap_or(created_at),
            suspended_at: at.optional_time("suspended_at", row.suspended_at)?,
            revoked_at: at.optional_time("revoked_at", row.revoked_at)?,
            token_epoch: 0,
        })
    };
    rows.into_iter().map(agent).collect()
}

fn api_keys(rows: Vec<ApiKeyRow>, known: &HashSet<AgentId>, grace: Duration) -> Result<Vec<(ApiKey, KeyHash)>> {
    let (mut ids, mut hashes) = (Unique::default(), Unique::default());
    let api_key = |row: ApiKeyRow| {
        let at = RowPosition::of(ApiKeyRow::TABLE, row.row_number, row.id.as_deref());
        let id = key_id(&at.filled("id", row.id)?);
        ids.add(id, &at, "id")?;
        // The error does not quote the value, which may be a raw key.
        let hash = KeyHash::from_hex(&at.filled("key_hash", row.key_hash)?);
        let hash = hash.ok_or_else(|| at.wrong("key_hash", "it must have 64 hexadecimal digits"))?;
        hashes.add(hash, &at, "key_hash")?;
        let rotated_at = at.optional_time("rotated_at", row.rotated_at)?;
        let key = ApiKey {
            limits: KeyLimits::default(),
            id,
            agent_id: at.known("agent_id", row.agent_id, agent_id, known, "agent")?,
            key_prefix: at.text("key_prefix", row.key_prefix)?.unwrap_or_default(),
            name: at.text("name", row.name)?.unwrap_or_else(|| "default".to_owned()),
            status: at.parsed("status", row.status, ApiKeyStatus::parse)?,
            expires_at: at.optional_time("expires_at", row.expires_at)?,
            created_at: at.time("created_at", row.created_at)?,
            rotated_at,
            grace_ends_at: rotated_at.map(|rotated_at| rotated_at.plus(grace)),
            revoked_at: at.optional_time("revoked_at", row.revoked_at)?,
            last_used_at: at.optional_time("last_used_at", row.last_used_at)?,
            last_used_ip: None,
        };
        Ok((key, hash))
    };
    rows.into_iter().map(api_key).collect()
}

/// Revokes all keys of a revoked agent that had not expired by then. The predecessor did not revoke rotated keys.
fn revoke_with_agents(keys: &mut [(ApiKey, KeyHash)], agents: &[Agent]) {
    let revoked = agents.iter().filter(|agent| agent.status == AgentStatus::Revoked);
    let revoked: HashMap<_, _> =
        revoked.map(|agent| (agent.id, agent.revoked_at.unwrap_or(agent.updated_at))).collect();
    for (key, _) in keys.iter_mut().filter(|(key, _)| key.status != ApiKeyStatus::Revoked) {
        if let Some(&at) = revoked.get(&key.agent_id)
            && key.expires_at.is_none_or(|end| end > at)
        {
            (key.status, key.revoked_at) = (ApiKeyStatus::Revoked, Some(at));
        }
    }
}

fn capabilities(rows: Vec<CapabilityRow>) -> Result<Vec<Capability>> {
    let (mut ids, mut names) = (Unique::default(), Unique::default());
    let capability = |row: CapabilityRow| {
        let at = RowPosition::of(CapabilityRow::TABLE, row.row_number, row.id.as_deref());
        let id = capability_id(&at.filled("id", row.id)?);
        ids.add(id, &at, "id")?;
        let name = at.parsed("name", row.name, CapabilityName::parse)?;
        names.add(name.clone(), &at, "name")?;
        Ok(Capability {
            id,
            name,
            description: at.text("description", row.description)?.unwrap_or_default(),
            created_at: at.time("created_at", row.created_at)?,
        })
    };
    rows.into_iter().map(capability).collect()
}

fn grants(rows: Vec<GrantRow>, agents: &HashSet<AgentId>, registered: &HashSet<CapabilityId>) -> Result<Vec<Grant>> {
    let mut pairs = Unique::default();
    let grant = |row: GrantRow| {
        let at = RowPosition::of(GrantRow::TABLE, row.row_number, row.id.as_deref());
        let agent = at.known("agent_id", row.agent_id, agent_id, agents, "agent")?;
        let capability = at.known("capability_id", row.capability_id, capability_id, registered, "capability")?;
        pairs.add((agent, capability), &at, "capability_id")?;
        // The grant is valid even if the granter was deleted or never was an agent.
        let granted_by = row.granted_by.as_deref().map(agent_id).filter(|id| agents.contains(id));
        Ok(Grant { agent, capability, granted_by, at: at.time("granted_at", row.granted_at)? })
    };
    rows.into_iter().map(grant).collect()
}

fn audit(rows: Vec<AuditRow>, owners: &HashMap<ApiKeyId, AgentId>) -> Result<Vec<Record>> {
    let record = |row: AuditRow| {
        let at = RowPosition::of(AuditRow::TABLE, row.row_number, row.id.as_deref());
        let resource_type = at.text("resource_type", row.resource_type)?;
        let resource_id = at.text("resource_id", row.resource_id)?;
        // The predecessor does not store the subject. Without it, an agent's page would lack its history.
        let subject = match (resource_type.as_deref(), resource_id.as_deref()) {
            (Some("agent"), Some(id)) if !id.is_empty() => Some(agent_id(id)),
            (Some("api_key"), Some(id)) => owners.get(&key_id(id)).copied(),
            _ => None,
        };
        Ok(Record {
            seq: 0,
            id: uuid("audit", &at.filled("id", row.id)?),
            at: at.time("timestamp", row.timestamp)?,
            // Kept for deleted agents too, so that their records have the same actor.
            actor: at.text("agent_id", row.agent_id)?.filter(|id| !id.is_empty()).map(|id| agent_id(&id).into()),
            subject,
            action: at.filled("action", row.action)?,
            resource_type,
            resource_id,
            details: at.text("details_json", row.details_json)?.unwrap_or_else(empty_document),
            ip: at.text("ip_address", row.ip_address)?,
            success: at.flag("success", row.success)?,
            request_id: None,
            prev_hash: GENESIS,
            hash: GENESIS,
        })
    };
    let mut records = rows.into_iter().map(record).collect::<Result<Vec<_>>>()?;
    // A stable sort keeps the order of records with the same time.
    records.sort_by_key(|record| record.at);
    Ok(records)
}

fn empty_document() -> String {
    "{}".to_owned()
}

fn agent_id(text: &str) -> AgentId {
    AgentId(uuid("agent", text))
}

fn key_id(text: &str) -> ApiKeyId {
    ApiKeyId(uuid("api_key", text))
}

fn capability_id(text: &str) -> CapabilityId {
    CapabilityId(uuid("capability", text))
}

/// Returns the ID itself if it is a UUID. Otherwise, returns a `UUIDv8` (RFC 9562 §5.8) from the hash of its kind and
/// text, so that all references to it stay consistent.
fn uuid(kind: &str, text: &str) -> Uuid {
    Uuid::try_parse(text).unwrap_or_else(|_| {
        let digest: [u8; 32] = Sha256::new().chain_update(kind).chain_update([0]).chain_update(text).finalize().into();
        let [bytes @ .., _, _, _, _, _, _, _, _, _, _, _, _, _, _, _, _] = digest;
        Builder::from_custom_bytes(bytes).into_uuid()
    })
}

/// Values that must be unique. The predecessor's file may lack constraints, and two spellings of one UUID satisfy them.
struct Unique<T>(HashSet<T>);

impl<T> Default for Unique<T> {
    fn default() -> Self {
        Self(HashSet::new())
    }
}

impl<T: Eq + Hash> Unique<T> {
    fn add(&mut self, value: T, at: &RowPosition, field: &'static str) -> Result<()> {
        if self.0.insert(value) { Ok(()) } else { Err(at.wrong(field, "an earlier row has the same value")) }
    }
}

/// The position of a row, for error messages.
struct RowPosition {
    table: &'static str,
    row: i64,
    id: String,
}

impl RowPosition {
    fn of(table: &'static str, row: i64, id: Option<&str>) -> Self {
        Self { table, row, id: id.map_or_else(|| "NULL".to_owned(), quoted) }
    }

    fn wrong(&self, field: &'static str, problem: impl Display) -> BadRow {
        BadRow { table: self.table, row: self.row, id: self.id.clone(), field, problem: problem.to_string() }
    }

    fn text(&self, field: &'static str, value: Option<String>) -> Result<Option<String>> {
        // PostgreSQL cannot store it, and would only report it when everything is written.
        if value.as_ref().is_some_and(|value| value.contains('\0')) {
            return Err(self.wrong(field, "it contains a NUL character"));
        }
        Ok(value)
    }

    fn filled(&self, field: &'static str, value: Option<String>) -> Result<String> {
        let value = self.text(field, value)?.filter(|value| !value.is_empty());
        value.ok_or_else(|| self.wrong(field, "it is missing"))
    }

    fn parsed<T>(
        &self,
        field: &'static str,
        value: Option<String>,
        parse: fn(&str) -> std::result::Result<T, Invalid>,
    ) -> Result<T> {
        let value = self.filled(field, value)?;
        parse(&value)
            .map_err(|invalid| self.wrong(field, format!("{} is not valid: {}", quoted(&value), invalid.message())))
    }

    fn optional_time(&self, field: &'static str, value: Option<String>) -> Result<Option<Timestamp>> {
        let Some(value) = value else { return Ok(None) };
        let time = Timestamp::parse_lenient(&value);
        time.map(Some).ok_or_else(|| self.wrong(field, format!("{} is not an ISO 8601 time", quoted(&value))))
    }

    fn time(&self, field: &'static str, value: Option<String>) -> Result<Timestamp> {
        self.optional_time(field, value)?.ok_or_else(|| self.wrong(field, "it is missing"))
    }

    fn flag(&self, field: &'static str, value: Option<String>) -> Result<bool> {
        let value = self.filled(field, value)?;
        match value.to_ascii_lowercase().as_str() {
            "1" | "true" => Ok(true),
            "0" | "false" => Ok(false),
            _ => Err(self.wrong(field, format!("{} is neither true nor false", quoted(&value)))),
        }
    }

    /// Resolves a reference to a row that was read before.
    fn known<T: Eq + Hash>(
        &self,
        field: &'static str,
        value: Option<String>,
        identify: fn(&str) -> T,
        known: &HashSet<T>,
        what: &str,
    ) -> Result<T> {
        let value = self.filled(field, value)?;
        let id = identify(&value);
        if known.contains(&id) {
            Ok(id)
        } else {
            Err(self.wrong(field, format!("there is no {what} {}", quoted(&value))))
        }
    }
}

/// Quotes a value for a message, on one line and truncated.
fn quoted(value: &str) -> String {
    const SHOWN: usize = 80;
    match value.char_indices().nth(SHOWN).and_then(|(end, _)| value.get(..end)) {
        Some(start) => format!("{start:?}…"),
        None => format!("{value:?}"),
    }
}
