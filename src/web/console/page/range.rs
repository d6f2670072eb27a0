//! The range of time that a page covers. It is the parameter `range` of the URL, and charts and numbers of the page agree on
//! it.

use super::query::Params;
pub(in crate::web::console) use crate::domain::audit::Range;
use crate::{domain::Invalid, web::request::fields::Fields};

/// The name of the parameter.
const PARAMETER: &str = "range";

/// A link to the same page with another range.
pub(in crate::web::console) struct Choice {
    pub(in crate::web::console) label: &'static str,
    pub(in crate::web::console) href: String,
    pub(in crate::web::console) is_current: bool,
}

/// Reads the range, which is the first of those offered unless the URL has one.
pub(in crate::web::console) fn read(fields: &mut Fields, offered: &[Range]) -> Range {
    let chosen = fields.optional(PARAMETER, |text| {
        let unknown = Invalid::NotOneOf(&["24h", "7d", "30d", "90d"]);
        Range::parse(text).ok().filter(|range| offered.contains(range)).ok_or(unknown)
    });
    chosen.or_else(|| offered.first().copied()).unwrap_or(Range::Day)
}

/// Returns links to the ranges of a page, which keep all other parameters. The first range is that of the page without the
/// parameter.
pub(in crate::web::console) fn choices(path: &str, params: &Params, offered: &[Range], current: Range) -> Vec<Choice> {
    let choice = |&range: &Range| {
        let value = if offered.first() == Some(&range) { "" } else { range.as_str() };
        let href = params.with(PARAMETER, value).with("cursor", "").href(path);
        Choice { label: label(range), href, is_current: range == current }
    };
    offered.iter().map(choice).collect()
}

/// Returns the length of a range as text, such as `24 hours`.
pub(in crate::web::console) const fn label(range: Range) -> &'static str {
    match range {
        Range::Day => "24 hours",
        Range::Week => "7 days",
        Range::Month => "30 days",
        Range::Quarter => "90 days",
    }
}
