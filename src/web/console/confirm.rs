//! The page that asks for confirmation before something is replaced, revoked, deleted or disabled, with what is known
//! about its effect. Agents have a page of their own for this.

use askama::Template;

use super::page::{
    frame::{Frame, Moment},
    grouped,
};
use crate::{domain::Role, service::tokens::live_tokens::Count};

/// What a decision depends on.
pub(super) enum Fact {
    Text(String),
    /// A name for programs.
    Code(String),
    Time(Moment),
    Role(Role),
    Links(Vec<Link>),
}

/// Something with a page of its own.
pub(super) struct Link {
    pub(super) name: String,
    pub(super) path: String,
    /// Follows the name.
    pub(super) note: String,
}

impl Fact {
    /// A single link.
    pub(super) fn link(name: impl Into<String>, path: String) -> Self {
        Self::Links(vec![Link { name: name.into(), path, note: String::new() }])
    }

    /// A number of tokens.
    pub(super) fn tokens(count: Count) -> Self {
        let more = if count.may_be_more { " or more" } else { "" };
        Self::Text(format!("{}{more}", grouped(count.tokens)))
    }

    /// A time, or `otherwise` if there is none.
    pub(super) fn time(moment: Option<Moment>, otherwise: &str) -> Self {
        moment.map_or_else(|| Self::Text(otherwise.to_owned()), Self::Time)
    }
}

#[derive(Template)]
#[template(path = "confirm.html")]
pub(super) struct ConfirmPage {
    pub(super) frame: Frame,
    /// The pages above this one: names and paths.
    pub(super) parents: Vec<(String, String)>,
    /// The title before the object, such as `Delete`.
    pub(super) verb: &'static str,
    pub(super) object: String,
    /// The title after the object.
    pub(super) rest: String,
    /// What happens, and whether it can be undone.
    pub(super) note: String,
    pub(super) facts: Vec<(&'static str, Fact)>,
    /// The path that the form is posted to.
    pub(super) action: String,
    /// The hidden fields of the form.
    pub(super) fields: Vec<(&'static str, &'static str)>,
    /// The button, such as `Delete resource`.
    pub(super) button: &'static str,
    /// The path that Cancel leads to.
    pub(super) cancel: String,
}
