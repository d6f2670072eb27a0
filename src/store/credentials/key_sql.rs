//! The conditions of a filter of keys as SQL, and the indexes that serve them. Keys have the alias `k`, agents `a`.

use uuid::Uuid;

use crate::{
    domain::{
        AgentId, ApiKeyId, Timestamp,
        agent::selector::Term,
        capability::builtin,
        credential::api_key::Position,
        credential::key_filter::{ExpiryFilter, Filter, LimitFilter, Sort, StateFilter, UsageFilter},
    },
    store::{
        agents::labels,
        db::{Conn, sql::Sql},
    },
};

/// The condition that a key of the right status has neither expired nor been used up. Followed by the current time and
/// [`NOT_USED_UP`].
const UNEXPIRED: &str = "(k.expires_at IS NULL OR k.expires_at > ";
const NOT_USED_UP: &str = ") AND (k.uses_left IS NULL OR k.uses_left > 0)";

/// The order of a listing.
pub(super) struct Order {
    pub(super) column: &'static str,
    pub(super) is_ascending: bool,
}

impl Order {
    pub(super) const fn of(sort: Sort) -> Self {
        let column = match sort {
            Sort::Newest | Sort::Oldest => "k.created_at",
            Sort::RecentlyUsed | Sort::LongestUnused => "k.idle_since",
            // The largest time if the key never expires.
            Sort::Expiry | Sort::ExpiryDescending => "k.ends_at",
        };
        Self { column, is_ascending: sort.is_ascending() }
    }

    pub(super) fn push(&self, sql: &mut Sql, at: &str, id: &str) {
        let direction = if self.is_ascending { "" } else { " DESC" };
        sql.push(" ORDER BY ").push(at).push(direction).push(", ").push(id).push(direction);
    }
}

/// A set of keys that an index looks up.
pub(super) enum Branch {
    /// Keys by an index of theirs, which SQLite is told: it has no statistics to choose by.
    Keys(&'static str, Vec<Part>),
    /// Keys of the agents that an index of agents looks up.
    Agents(&'static str, Vec<Part>),
    /// Keys of the agents that hold this capability. PostgreSQL estimates their number by its ID, not by its name.
    Holders(Uuid),
    /// Keys of the agents with a label.
    Labelled(Term),
}

/// A part of a condition.
pub(super) enum Part {
    Sql(&'static str),
    Time(Timestamp),
    Text(String),
    Agent(AgentId),
    /// The beginning of a name, in an expression that the index has.
    NameFrom(String),
    /// The beginning of a displayed prefix.
    PrefixFrom(String),
}

fn collation(conn: &Conn<'_>) -> &'static str {
    if matches!(conn, Conn::Sqlite(_)) { "" } else { " COLLATE \"C\"" }
}

impl Part {
    fn push(&self, sql: &mut Sql, conn: &Conn<'_>) {
        let collation = collation(conn);
        match self {
            Self::Sql(text) => sql.push(text),
            Self::Time(at) => sql.bind(at.as_micros()),
            Self::Text(text) => sql.bind(text.as_str()),
            Self::Agent(id) => sql.bind(id.0),
            // The largest character is after every text that starts with the same beginning.
            Self::NameFrom(text) => {
                sql.push("LOWER(k.name)").push(collation).push(" >= LOWER(").bind(text.as_str()).push(")");
                sql.push(" AND LOWER(k.name)").push(collation).push(" < LOWER(").bind(text.as_str()).push(") || ");
                sql.bind("\u{10FFFF}")
            }
            Self::PrefixFrom(text) => {
                sql.push("k.key_prefix").push(collation).push(" >= ").bind(text.as_str());
                sql.push(" AND k.key_prefix").push(collation).push(" < ");
                sql.bind(format!("{text}\u{10FFFF}").as_str())
            }
        };
    }
}

impl Branch {
    /// Adds the tables and the condition. The agents are among the tables if `with_agents` or if they are looked up.
    pub(super) fn push(&self, sql: &mut Sql, conn: &Conn<'_>, with_agents: bool) {
        let is_sqlite = matches!(conn, Conn::Sqlite(_));
        let index = |sql: &mut Sql, name: &str| {
            if is_sqlite {
                sql.push(" INDEXED BY ").push(name);
            }
        };
        let of_agents = |sql: &mut Sql| {
            sql.push(") AS h CROSS JOIN api_keys k");
            index(sql, "api_keys_by_agent");
            sql.push(if with_agents { " CROSS JOIN agents a" } else { "" }).push(" WHERE k.agent_id = h.agent_id");
            sql.push(if with_agents { " AND a.id = k.agent_id" } else { "" });
        };
        let parts = match self {
            Self::Keys(name, parts) => {
                sql.push("api_keys k");
                index(sql, name);
                sql.push(if with_agents { " CROSS JOIN agents a WHERE a.id = k.agent_id" } else { " WHERE 1 = 1" });
                parts.as_slice()
            }
            Self::Agents(name, parts) => {
                sql.push("agents a");
                index(sql, name);
                sql.push(" CROSS JOIN api_keys k");
                index(sql, "api_keys_by_agent");
                sql.push(" WHERE k.agent_id = a.id");
                parts.as_slice()
            }
            Self::Holders(capability) => {
                sql.push("(SELECT g.agent_id FROM agent_capabilities g WHERE g.capability_id = ").bind(*capability);
                of_agents(sql);
                &[]
            }
            Self::Labelled(term) => {
                labels::from_labels(sql.push("(SELECT l.agent_id"), term);
                of_agents(sql);
                &[]
            }
        };
        if !parts.is_empty() {
            sql.push(" AND ");
        }
        for part in parts {
            part.push(sql, conn);
        }
    }
}

/// Returns true if the conditions of a filter read agents.
pub(super) fn reads_agents(filter: &Filter) -> bool {
    let state = |state| matches!(state, StateFilter::Active | StateFilter::Rotated | StateFilter::Blocked);
    filter.owner.is_some() || filter.used_in_grace || filter.state.is_some_and(state)
}

const ACTIVE: Part = Part::Sql("k.status = 'active'");

/// Returns the sets of keys of which each contains all that match the filter. Those that are likely to be small come
/// first. A set is the union of its branches. `admin` is the ID of `admin:*`.
pub(super) fn sources(filter: &Filter, now: Timestamp, admin: Option<Uuid>) -> Vec<Vec<Branch>> {
    let mut sources = Vec::new();
    if let Some(agent) = filter.agent {
        sources.push(vec![Branch::Keys("api_keys_by_agent", vec![Part::Sql("k.agent_id = "), Part::Agent(agent)])]);
    }
    if let Some(text) = &filter.text {
        sources.push(vec![
            Branch::Keys("api_keys_by_name", vec![Part::NameFrom(text.clone())]),
            Branch::Keys("api_keys_by_prefix", vec![Part::PrefixFrom(text.clone())]),
        ]);
    }
    if let Some(owner) = &filter.owner {
        sources.push(vec![Branch::Agents("agents_by_owner", vec![Part::Sql("a.owner = "), Part::Text(owner.clone())])]);
    }
    for term in filter.selector.iter().flat_map(labels::looked_up) {
        sources.push(vec![Branch::Labelled(term.clone())]);
    }
    if let Some(admin) = admin.filter(|_| filter.administrators) {
        sources.push(vec![Branch::Holders(admin)]);
    }
    if filter.used_in_grace || filter.state == Some(StateFilter::Rotated) {
        let parts = vec![Part::Sql("k.status = 'rotated' AND k.grace_ends_at > "), Part::Time(now)];
        sources.push(vec![Branch::Keys("api_keys_in_grace", parts)]);
    }
    if let Some(limit) = filter.limit {
        let (index, condition) = limited(limit);
        sources.push(vec![Branch::Keys(index, vec![Part::Sql(condition)])]);
    }
    match filter.state {
        Some(StateFilter::Expired) => sources.push(vec![
            Branch::Keys(
                "api_keys_by_expiry",
                vec![ACTIVE, Part::Sql(" AND k.expires_at IS NOT NULL AND k.expires_at <= "), Part::Time(now)],
            ),
            Branch::Keys("api_keys_in_grace", vec![Part::Sql("k.status = 'rotated'")]),
            Branch::Keys("api_keys_with_uses", vec![Part::Sql("k.uses_left IS NOT NULL AND k.uses_left = 0")]),
        ]),
        Some(StateFilter::Revoked) => {
            sources.push(vec![Branch::Keys("api_keys_revoked", vec![Part::Sql("k.status = 'revoked'")])]);
        }
        Some(StateFilter::Blocked) => {
            sources.push(vec![Branch::Agents("agents_by_state", vec![Part::Sql("a.status = 'suspended'")])]);
        }
        Some(StateFilter::Active | StateFilter::Rotated) | None => {}
    }
    if filter.usage == Some(UsageFilter::Never) {
        sources.push(vec![Branch::Keys("api_keys_never_used", vec![Part::Sql("k.idle_since = k.created_at")])]);
    }
    if filter.is_of_active() {
        sources.extend(of_active(filter, now));
    }
    sources
}

/// Returns the sources that contain only keys with the stored status `active`.
fn of_active(filter: &Filter, now: Timestamp) -> Vec<Vec<Branch>> {
    let mut sources = Vec::new();
    if let Some(since) = filter.usage.and_then(|usage| usage.since(now)) {
        let parts = vec![ACTIVE, Part::Sql(" AND k.idle_since < "), Part::Time(since)];
        sources.push(vec![Branch::Keys("api_keys_by_idleness", parts)]);
    }
    let Some(expiry) = filter.expiry else { return sources };
    sources.push(vec![match expiry.until(now) {
        None => Branch::Keys("api_keys_without_end", vec![ACTIVE, Part::Sql(" AND k.expires_at IS NULL")]),
        Some(until) => {
            let range = [Part::Sql(" AND k.expires_at IS NOT NULL AND k.expires_at > "), Part::Time(now)];
            let end = [Part::Sql(" AND k.expires_at < "), Part::Time(until)];
            Branch::Keys("api_keys_by_expiry", std::iter::once(ACTIVE).chain(range).chain(end).collect())
        }
    }]);
    sources
}

const fn limited(limit: LimitFilter) -> (&'static str, &'static str) {
    match limit {
        LimitFilter::Networks => ("api_keys_with_networks", "k.networks IS NOT NULL"),
        LimitFilter::Capabilities => ("api_keys_with_scope", "k.scope IS NOT NULL"),
        LimitFilter::Uses => ("api_keys_with_uses", "k.uses_left IS NOT NULL"),
        LimitFilter::TokenLife => ("api_keys_with_token_life", "k.token_life IS NOT NULL"),
    }
}

/// Returns the keys to check one after another for a filter whose conditions each select many: an index in the order of
/// the listing, and the time up to which matches can be.
pub(super) fn walk(filter: &Filter, sort: Sort, now: Timestamp) -> Branch {
    let (index, condition) = walked(filter, sort);
    let (after, before) = times(filter, sort, now);
    // The other end is where the walk starts. SQLite would choose it instead of the position of a page.
    let (comparison, end) = if sort.is_ascending() { ("<", before) } else { (">", after) };
    let mut parts: Vec<_> = condition.map(Part::Sql).into_iter().collect();
    if let Some(end) = end {
        parts.extend((!parts.is_empty()).then_some(Part::Sql(" AND ")));
        parts.extend([Part::Sql(Order::of(sort).column), Part::Sql(" "), Part::Sql(comparison), Part::Sql(" ")]);
        parts.push(Part::Time(end));
    }
    Branch::Keys(index, parts)
}

/// Returns the position after which the first match can be.
pub(super) fn start(filter: &Filter, sort: Sort, now: Timestamp) -> Option<Position> {
    let (after, before) = times(filter, sort, now);
    if sort.is_ascending() {
        after.map(|time| (time, ApiKeyId(Uuid::max())))
    } else {
        before.map(|time| (time, ApiKeyId(Uuid::nil())))
    }
}

/// Returns the times between which all matches are, in the column of the sort order. Neither is included.
fn times(filter: &Filter, sort: Sort, now: Timestamp) -> (Option<Timestamp>, Option<Timestamp>) {
    match sort {
        // A key that is idle since some time was created before.
        Sort::Newest | Sort::Oldest | Sort::RecentlyUsed | Sort::LongestUnused => {
            (None, filter.usage.and_then(|usage| usage.since(now)))
        }
        Sort::Expiry | Sort::ExpiryDescending => match filter.expiry {
            Some(ExpiryFilter::Never) => (Some(Timestamp::from_micros(i64::MAX - 1)), None),
            Some(expiry) => (Some(now), expiry.until(now)),
            None => ((filter.is_of_active() || is_unexpired(filter)).then_some(now), None),
        },
    }
}

/// Returns an index in an order, and the condition of its rows.
fn walked(filter: &Filter, sort: Sort) -> (&'static str, Option<&'static str>) {
    let is_of_active = filter.is_of_active();
    match sort {
        Sort::Newest | Sort::Oldest => {
            if is_of_active && filter.expiry == Some(ExpiryFilter::Never) {
                ("api_keys_without_end", Some("k.status = 'active' AND k.expires_at IS NULL"))
            } else if filter.usage == Some(UsageFilter::Never) {
                ("api_keys_never_used", Some("k.idle_since = k.created_at"))
            } else if filter.state == Some(StateFilter::Revoked) {
                ("api_keys_revoked", Some("k.status = 'revoked'"))
            } else if let Some(limit) = filter.limit {
                let (index, condition) = limited(limit);
                (index, Some(condition))
            } else {
                ("api_keys_in_order", None)
            }
        }
        Sort::RecentlyUsed | Sort::LongestUnused if is_of_active => {
            ("api_keys_by_idleness", Some("k.status = 'active'"))
        }
        Sort::RecentlyUsed | Sort::LongestUnused => ("api_keys_by_use", None),
        Sort::Expiry | Sort::ExpiryDescending => ("api_keys_by_end", None),
    }
}

/// Returns true if only keys that have not expired are in the state of the filter.
const fn is_unexpired(filter: &Filter) -> bool {
    matches!(filter.state, Some(StateFilter::Active | StateFilter::Rotated | StateFilter::Blocked))
        || filter.used_in_grace
}

/// Adds all conditions of a filter.
pub(super) fn narrow(sql: &mut Sql, conn: &Conn<'_>, filter: &Filter, now: Timestamp) {
    let at = now.as_micros();
    if let Some(text) = &filter.text {
        sql.push(" AND (");
        Part::NameFrom(text.clone()).push(sql, conn);
        sql.push(" OR ");
        Part::PrefixFrom(text.clone()).push(sql, conn);
        sql.push(")");
    }
    if let Some(agent) = filter.agent {
        sql.and("k.agent_id =", agent.0);
    }
    if let Some(owner) = &filter.owner {
        sql.and("a.owner =", owner.as_str());
    }
    if let Some(selector) = &filter.selector {
        labels::require(sql, selector, "k.agent_id");
    }
    if filter.administrators {
        sql.push(" AND (SELECT 1 FROM agent_capabilities g WHERE g.agent_id = k.agent_id AND g.capability_id = ");
        sql.push("(SELECT id FROM capabilities WHERE name = ").bind(builtin::ADMIN).push(")) IS NOT NULL");
    }
    if filter.used_in_grace {
        in_state(sql, StateFilter::Rotated, at);
        sql.push(" AND k.last_used_at > k.rotated_at");
    }
    if let Some(state) = filter.state {
        in_state(sql, state, at);
    } else if filter.is_of_active() {
        sql.push(" AND k.status = 'active' AND ").push(UNEXPIRED).bind(at).push(")");
    }
    match (filter.usage, filter.usage.and_then(|usage| usage.since(now))) {
        (_, Some(since)) => {
            sql.and("k.idle_since <", since.as_micros());
            sql.and("COALESCE(k.last_used_at, k.created_at) <", since.as_micros());
        }
        (Some(_), None) => {
            sql.push(" AND k.idle_since = k.created_at AND k.last_used_at IS NULL");
        }
        (None, None) => {}
    }
    match (filter.expiry, filter.expiry.and_then(|expiry| expiry.until(now))) {
        (_, Some(until)) => {
            sql.and("k.expires_at >", at).and("k.expires_at <", until.as_micros());
        }
        (Some(_), None) => {
            sql.push(" AND k.expires_at IS NULL");
        }
        (None, None) => {}
    }
    if let Some(limit) = filter.limit {
        sql.push(" AND ").push(limited(limit).1);
    }
}

/// Adds the condition that [`crate::domain::ApiKey::state`] returns this state.
fn in_state(sql: &mut Sql, state: StateFilter, now: i64) {
    match state {
        StateFilter::Active => {
            sql.push(" AND k.status = 'active' AND ").push(UNEXPIRED).bind(now).push(NOT_USED_UP);
            sql.push(" AND a.status = 'active'");
        }
        StateFilter::Rotated => {
            sql.push(" AND k.status = 'rotated' AND k.grace_ends_at > ").bind(now).push(" AND ");
            sql.push(UNEXPIRED).bind(now).push(NOT_USED_UP).push(" AND a.status = 'active'");
        }
        StateFilter::Blocked => {
            sql.push(" AND (k.status = 'active' OR (k.status = 'rotated' AND k.grace_ends_at > ").bind(now);
            sql.push(")) AND ").push(UNEXPIRED).bind(now).push(NOT_USED_UP).push(" AND a.status <> 'active'");
        }
        StateFilter::Expired => {
            sql.push(" AND k.status <> 'revoked' AND ((k.status = 'rotated' AND COALESCE(k.grace_ends_at, 0) <= ")
                .bind(now);
            sql.push(") OR k.ends_at <= ").bind(now).push(" OR k.uses_left = 0)");
        }
        StateFilter::Revoked => {
            sql.push(" AND k.status = 'revoked'");
        }
    }
}
