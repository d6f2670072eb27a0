//! The setup steps.

use crate::service::overview::{Item, Steps};

/// A setup step.
pub(super) struct Step {
    pub(super) is_done: bool,
    pub(super) name: String,
    /// Where it is done; `None` if it is done outside the console.
    pub(super) href: Option<String>,
    pub(super) hint: &'static str,
    /// The item to tick by hand; `None` if AIMS sees by itself whether the step is done.
    pub(super) by_hand: Option<&'static str>,
}

/// Returns the steps in the order to do them.
pub(super) fn of(steps: &Steps) -> Vec<Step> {
    let step = |is_done, name: &str, href: String, hint| Step {
        is_done,
        name: name.to_owned(),
        href: Some(href),
        hint,
        by_hand: None,
    };
    let connect = match &steps.agent {
        Some((id, _)) => format!("/console/agents/{id}/connect"),
        None => "/console/agents".to_owned(),
    };
    vec![
        step(
            steps.agent.is_some(),
            "Create an agent",
            "/console/agents/new".to_owned(),
            "An agent has a name, an owner, capabilities and an API key.",
        ),
        step(
            steps.exchange,
            "Make its first exchange",
            connect,
            "The agent exchanges its key for a short-lived token. Tokens for the agent admin do not count.",
        ),
        step(
            steps.owner,
            "Add a second owner",
            "/console/administrators/new".to_owned(),
            "If one owner is locked out, the other can help.",
        ),
        step(
            steps.passkey,
            "Add a passkey",
            "/console/account".to_owned(),
            "It protects your account, and cannot be phished.",
        ),
        Step {
            is_done: steps.backup,
            name: "Plan a backup".to_owned(),
            href: None,
            hint: "Set BACKUP_SCHEDULE and BACKUP_DIR, or run aims backup regularly.",
            by_hand: (!steps.backup_is_known).then_some(Item::Backup.as_str()),
        },
    ]
}
