//! Setting and removing labels of all agents that a selector matches, for programs and commands.

use std::sync::Arc;

use super::{
    bulk::{BULK_MAX, Bulk, apply::perform, preview::preview},
    listing,
};
use crate::{
    domain::{
        AgentId, Error, Result,
        agent::{Filter, label_change::LabelChange, selector::Selector},
    },
    service::{
        Services,
        core::{caller::Caller, policy::Action},
    },
};

/// Which agents a change of labels changed, or would change.
#[derive(Clone, Debug)]
pub struct Labelled {
    /// Their names and identifiers, sorted by name.
    pub changed: Vec<(AgentId, String)>,
    /// The others, each with the reason. Without a name if the agent no longer exists.
    pub unchanged: Vec<(AgentId, Option<String>, String)>,
}

/// Changes the labels of all agents that match a selector, each with a record of its own. With `dry_run`, only says which
/// agents would change. An agent that has the labels already does not change, so it is safe to repeat.
///
/// # Errors
/// [`Error::Conflict`] if more than [`BULK_MAX`] agents match; [`Error::Denied`].
pub async fn label(
    services: &Arc<Services>,
    caller: &Caller,
    selector: Selector,
    change: LabelChange,
    dry_run: bool,
) -> Result<Labelled> {
    services.permit(caller, Action::UpdateAgent).await?;
    let filter = Filter { selector: Some(selector), ..Filter::default() };
    let ids = listing::matching(services, caller, &filter).await?;
    if ids.len() > BULK_MAX {
        let message =
            format!("More than {BULK_MAX} agents match, which is too many to change at once: narrow the selector");
        return Err(Error::Conflict(message.into()));
    }
    let bulk = Bulk::Label(change);
    let mut preview = preview(services, caller, &bulk, &ids).await?;
    let mut unchanged: Vec<_> = std::mem::take(&mut preview.unchanged)
        .into_iter()
        .map(|(id, brief, reason)| (id, brief.map(|brief| brief.name.to_string()), reason.to_string()))
        .collect();
    let mut changed = if dry_run || preview.changes.is_empty() {
        preview.changes
    } else {
        let done = perform(services, caller, &bulk, preview).await?;
        unchanged.extend(done.failed.into_iter().map(|(brief, why)| (brief.id, Some(brief.name.to_string()), why)));
        done.changed
    };
    changed.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    unchanged.sort_unstable_by(|(_, a, _), (_, b, _)| a.cmp(b));
    Ok(Labelled { changed: changed.into_iter().map(|brief| (brief.id, brief.name.to_string())).collect(), unchanged })
}
