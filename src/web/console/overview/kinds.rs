//! Issued tokens by their kind and refused requests by their reason.

use super::numbers::Period;
use crate::{domain::audit::AuditAction, service::overview::Kind, web::console::page::grouped};

/// How many reasons are shown at once. The others are in a list to open.
const SHOWN: usize = 6;

/// The kinds of a range.
pub(super) struct Kinds {
    pub(super) issued: Vec<KindRow>,
    pub(super) refused: Vec<KindRow>,
    pub(super) more_refused: Vec<KindRow>,
    /// How many of the refusals have no record of their own.
    pub(super) summarised: Option<String>,
}

/// A kind, with a link to its records.
pub(super) struct KindRow {
    pub(super) label: String,
    /// The event of the records.
    pub(super) action: String,
    pub(super) count: String,
    pub(super) href: String,
}

impl Kinds {
    pub(super) fn of(kinds: &[Kind], period: Period) -> Self {
        let (issued, mut refused): (Vec<_>, Vec<_>) =
            kinds.iter().partition::<Vec<&Kind>, _>(|kind| issued(&kind.action).is_some());
        let more = refused.split_off(refused.len().min(SHOWN));
        let rows = |kinds: Vec<&Kind>| kinds.into_iter().map(|kind| row(kind, period)).collect();
        let summarised = kinds.iter().find(|kind| kind.action == AuditAction::RefusalsSuppressed.as_str());
        Self {
            issued: rows(issued),
            refused: rows(refused),
            more_refused: rows(more),
            summarised: summarised.map(|kind| grouped(kind.times)),
        }
    }
}

fn row(kind: &Kind, period: Period) -> KindRow {
    let mut filters = vec![("action", kind.action.as_str())];
    if !kind.reason.is_empty() {
        filters.push(("reason", kind.reason.as_str()));
    }
    KindRow {
        label: label(kind),
        action: kind.action.clone(),
        count: grouped(kind.times),
        href: period.audit(&filters),
    }
}

fn label(kind: &Kind) -> String {
    if let Some(label) = issued(&kind.action) {
        return label.to_owned();
    }
    if !kind.reason.is_empty() {
        return words(&kind.reason);
    }
    match AuditAction::parse(&kind.action) {
        Ok(AuditAction::AuthzDenied) => "Missing permission".to_owned(),
        Ok(AuditAction::RefusalsSuppressed) => "Counted in summary records".to_owned(),
        _ => "Other reasons".to_owned(),
    }
}

/// Returns what a token was issued for; `None` if the event issues no token.
fn issued(action: &str) -> Option<&'static str> {
    match AuditAction::parse(action) {
        Ok(AuditAction::TokenIssued) => Some("For an API key"),
        Ok(AuditAction::TokenGranted) => Some("For an OAuth client"),
        Ok(AuditAction::TokenExchanged) => Some("To act for another agent"),
        _ => None,
    }
}

/// Writes a reason as words: `key_expired` as `Key expired`.
fn words(reason: &str) -> String {
    let text = reason.replace('_', " ").replace("dpop", "DPoP").replace("api ", "API ").replace("jwt", "JWT");
    let mut letters = text.chars();
    let first = letters.next().map(|first| first.to_ascii_uppercase());
    first.into_iter().chain(letters).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_named_in_words() {
        let label = |action: &str, reason: &str| {
            label(&Kind { action: action.to_owned(), reason: reason.to_owned(), times: 1 })
        };
        assert_eq!(label("auth.token_issued", ""), "For an API key");
        assert_eq!(label("auth.failed", "key_expired"), "Key expired");
        assert_eq!(label("token.refused", "dpop_other_key"), "DPoP other key");
        assert_eq!(label("authz.denied", ""), "Missing permission");
        assert_eq!(label("token.refused", ""), "Other reasons");
    }
}
