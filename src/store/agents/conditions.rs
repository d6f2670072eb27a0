//! Conditions of a listing that its index does not contain.

use std::collections::BTreeSet;

use super::{labels, search};
use crate::{
    domain::{
        AgentStatus, AgentType, CapabilityId,
        agent::{
            Filter, Sort, Unused,
            selector::{Condition, Selector},
        },
    },
    store::db::{Conn, sql::Sql},
};

/// Conditions to check for each agent.
pub(super) struct Conditions<'f> {
    pub(super) text: Option<&'f str>,
    owner_part: Option<&'f str>,
    pub(super) capability: Option<CapabilityId>,
    pub(super) unused: Option<Unused>,
    pub(super) selector: Option<&'f Selector>,
    /// The status and the type, if the listing is in the order of an index of labels.
    state: (Option<AgentStatus>, Option<AgentType>),
}

impl<'f> Conditions<'f> {
    /// The conditions that an index in the order of the listing does not contain.
    pub(super) fn of(filter: &'f Filter, sort: Sort) -> Self {
        let all = Self::all_of(filter);
        // The index does not contain when agents were created: very many may be too new to count as unused.
        let unused = all.unused.filter(|unused| !is_by_use(sort) || matches!(unused, Unused::Since(_)));
        let state = if by_label(filter, sort).is_some() { (filter.status, filter.agent_type) } else { (None, None) };
        Self { unused, state, ..all }
    }

    pub(super) fn all_of(filter: &'f Filter) -> Self {
        let (text, owner_part) = (filter.text.as_deref(), filter.owner_part.as_deref());
        let (capability, unused, selector) = (filter.capability, filter.unused, filter.selector.as_ref());
        Self { text, owner_part, capability, unused, selector, state: (None, None) }
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.text.is_none()
            && self.owner_part.is_none()
            && self.capability.is_none()
            && self.unused.is_none()
            && self.selector.is_none()
    }

    /// Returns true if the status or the type is checked.
    pub(super) const fn has_state(&self) -> bool {
        self.state.0.is_some() || self.state.1.is_some()
    }

    /// The texts that the trigram index finds.
    pub(super) fn texts(&self) -> impl Iterator<Item = &'f str> {
        [self.text, self.owner_part].into_iter().flatten()
    }

    /// Adds the conditions on the agent `a`. With `by_index`, in a form for which PostgreSQL can use the trigram index.
    pub(super) fn require(&self, sql: &mut Sql, conn: &Conn<'_>, by_index: bool) {
        if let Some(text) = self.text {
            search::require_text(sql, conn, text, by_index);
        }
        if let Some(part) = self.owner_part {
            search::require_owner(sql, conn, part);
        }
        if let Some(capability) = self.capability {
            // Not `EXISTS`, for which PostgreSQL may hash all holders.
            sql.push(" AND (SELECT 1 FROM agent_capabilities g WHERE g.agent_id = a.id AND g.capability_id = ");
            sql.bind(capability.0).push(") IS NOT NULL");
        }
        if let Some(unused) = self.unused {
            require_unused(sql, unused);
        }
        if let Some(selector) = self.selector {
            labels::require(sql, selector, "a.id");
        }
        narrow(sql, None, self.state.0, self.state.1);
    }
}

/// Adds the conditions that the indexes of a listing begin with.
pub(super) fn narrow(sql: &mut Sql, owner: Option<&str>, status: Option<AgentStatus>, agent_type: Option<AgentType>) {
    if let Some(owner) = owner {
        sql.and("a.owner =", owner);
    }
    if let Some(status) = status {
        sql.and("a.status =", status.as_str());
    }
    if let Some(agent_type) = agent_type {
        sql.and("a.agent_type =", agent_type.as_str());
    }
}

/// Returns the label of which the index of labels has all agents that match, in the order of the listing: its key and
/// the values that it may have. Not with an owner, whose agents are likely to be fewer.
pub(super) fn by_label(filter: &Filter, sort: Sort) -> Option<(&str, &BTreeSet<String>)> {
    let in_order = matches!(sort, Sort::Oldest | Sort::Newest) && filter.owner.is_none();
    let selector = filter.selector.as_ref().filter(|_| in_order)?;
    selector.terms().iter().find_map(|term| match &term.condition {
        Condition::In(values) => Some((term.key.as_str(), values)),
        Condition::Present | Condition::Absent | Condition::NotIn(_) => None,
    })
}

/// Returns true if the index of this order contains the time of the last use.
pub(super) const fn is_by_use(sort: Sort) -> bool {
    matches!(sort, Sort::LastUsed | Sort::LongestUnused)
}

/// Adds the part of the condition that the index contains.
pub(super) fn require_last_use(sql: &mut Sql, unused: Unused) {
    match unused {
        Unused::Ever => sql.push(" AND a.last_used_at = 0"),
        Unused::Since(time) => sql.push(" AND a.last_used_at < ").bind(time.as_micros()),
    };
}

pub(super) fn require_unused(sql: &mut Sql, unused: Unused) {
    require_last_use(sql, unused);
    if let Unused::Since(time) = unused {
        sql.push(" AND a.created_at < ").bind(time.as_micros());
    }
}
