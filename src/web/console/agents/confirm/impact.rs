//! What a destructive action affects, in words. Shown before the action, on its confirmation page.

use std::fmt::Display;

use crate::{
    domain::Timestamp,
    service::{agents::impact, tokens::live_tokens::Count},
    web::console::page::frame::Moment,
};

/// Resources that are listed by name.
const LISTED: usize = 8;

/// What an action takes away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::web::console) enum Loss<'n> {
    /// Everything: the agents no longer work.
    Agents,
    /// Their tokens. Their credentials still work.
    Tokens,
    /// The capability with this name.
    Grant(&'n str),
    /// Acting for another agent.
    Delegation,
}

/// An impact, for the partial template `impact.html`.
pub(in crate::web::console) struct Shown {
    pub(in crate::web::console) lead: String,
    pub(in crate::web::console) effects: Vec<String>,
    /// What the list of resources means; empty without resources.
    pub(in crate::web::console) reach: String,
    /// Name and path of the resources.
    pub(in crate::web::console) resources: Vec<(String, String)>,
    /// The number of resources that are not listed.
    pub(in crate::web::console) unlisted: usize,
    pub(in crate::web::console) last_used: Option<Moment>,
}

impl Shown {
    pub(in crate::web::console) fn of(impact: &impact::Impact, loss: Loss<'_>, now: Timestamp) -> Self {
        let one = impact.agents == 1;
        let (it, its, subject) = if one { ("it", "Its", "It") } else { ("them", "Their", "They") };
        let resources = &impact.resources;
        let count = format!(
            "{}{}",
            counted(resources.found.len(), "resource", "resources"),
            if resources.may_be_more { " or more" } else { "" }
        );
        let (lead, reach) = match loss {
            Loss::Agents => (stops(impact, it), format!("{subject} can no longer get tokens for {count}:")),
            Loss::Tokens if impact.live_tokens.tokens == 0 => ("No token is active now.".to_owned(), String::new()),
            Loss::Tokens => {
                let keys = format!("{its} keys still work: a program that has one can request a new token at once.");
                (format!("This ends {}. {keys}", tokens(impact.live_tokens)), String::new())
            }
            Loss::Delegation if impact.live_tokens.tokens == 0 => {
                ("It has no active token to act for it.".to_owned(), String::new())
            }
            Loss::Delegation => (format!("This ends {}.", tokens(impact.live_tokens)), String::new()),
            Loss::Grant(name) => (loses(impact, name), format!("{subject} can no longer use {count}:")),
        };
        let listed = if reach.is_empty() { 0 } else { LISTED };
        let path = |(id, name): &(_, String)| (name.clone(), format!("/console/resources/{id}"));
        Self {
            lead,
            effects: effects(impact, loss, it, subject),
            reach: if resources.found.is_empty() { String::new() } else { reach },
            resources: resources.found.iter().take(listed).map(path).collect(),
            unlisted: if listed == 0 { 0 } else { resources.found.len().saturating_sub(listed) },
            last_used: impact.last_used_at.map(|at| Moment::at(at, now)),
        }
    }
}

fn stops(impact: &impact::Impact, it: &str) -> String {
    let mut parts = Vec::new();
    if impact.usable_keys > 0 {
        parts.push(counted(impact.usable_keys, "API key", "API keys"));
    }
    if impact.other_credentials > 0 {
        parts.push(counted(impact.other_credentials, "other credential", "other credentials"));
    }
    if impact.live_tokens.tokens > 0 || impact.live_tokens.may_be_more {
        parts.push(tokens(impact.live_tokens));
    }
    match parts.as_slice() {
        [] => format!("No key and no token of {it} works now."),
        [only] => format!("This stops {only}."),
        [first, last] => format!("This stops {first} and {last}."),
        [first, second, last, ..] => format!("This stops {first}, {second} and {last}."),
    }
}

fn loses(impact: &impact::Impact, name: &str) -> String {
    if impact.live_tokens.tokens == 0 {
        return format!("No token is active now. The next one will not include {name}.");
    }
    let verb = if impact.live_tokens.tokens == 1 && !impact.live_tokens.may_be_more { "loses" } else { "lose" };
    format!("{} {verb} {name} at once, if included.", tokens(impact.live_tokens))
}

fn effects(impact: &impact::Impact, loss: Loss<'_>, it: &str, subject: &str) -> Vec<String> {
    let delegates = most(impact.delegates, "agent", "agents");
    let delegators = most(impact.delegators, "agent", "agents");
    let (acting, acted_for) = match loss {
        Loss::Agents => (
            format!("{delegates} can no longer act for {it}."),
            format!("{subject} can no longer act for {delegators}."),
        ),
        Loss::Tokens => (format!("{delegates} can act for {it}: their tokens for {it} end too."), String::new()),
        Loss::Delegation => (String::new(), String::new()),
        Loss::Grant(name) => (
            format!("{delegates} can act for {it}, and can no longer use {name} when they do."),
            format!("{subject} can act for {delegators}, and can no longer use {name} when acting for them."),
        ),
    };
    let found = [(impact.delegates, acting), (impact.delegators, acted_for)];
    found.into_iter().filter(|(count, text)| *count > 0 && !text.is_empty()).map(|(_, text)| text).collect()
}

fn tokens(count: Count) -> String {
    if count.may_be_more {
        return format!("{} or more active tokens", count.tokens);
    }
    counted(count.tokens, "active token", "active tokens")
}

fn most(count: usize, one: &str, many: &str) -> String {
    if count >= impact::CONNECTED_MAX { format!("{count} or more {many}") } else { counted(count, one, many) }
}

fn counted<N: Copy + Display + PartialEq + From<u8>>(count: N, one: &str, many: &str) -> String {
    format!("{count} {}", if count == N::from(1) { one } else { many })
}
