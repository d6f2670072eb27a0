//! The changes of an edit, as its audit record shows them.

use serde::{Serialize, Serializer};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::hex;

/// Maximum length of a value that is shown in full, in characters.
const SHOWN: usize = 1_000;
/// Length of the text shown before the first difference, in characters.
const CONTEXT: usize = 100;

/// The fields that an edit changed, each with its value before and after.
///
/// If either value is long, both are truncated around the first difference, and the record adds the SHA-256 of each
/// full value. Two different values never look the same.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Changes(Vec<(&'static str, Value)>);

impl Changes {
    /// Compares fields, each given as its name and its value before and after. Unchanged fields are omitted.
    #[must_use]
    pub fn of<'v>(fields: impl IntoIterator<Item = (&'static str, &'v str, &'v str)>) -> Self {
        let changed = fields.into_iter().filter(|(_, from, to)| from != to);
        Self(changed.map(|(name, from, to)| (name, change(from, to))).collect())
    }

    /// Returns true if no field changed.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The names of the fields that changed, in the order in which they were given.
    #[must_use]
    pub fn fields(&self) -> Vec<&'static str> {
        self.0.iter().map(|(name, _)| *name).collect()
    }
}

impl Serialize for Changes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(name, change)| (name, change)))
    }
}

fn change(from: &str, to: &str) -> Value {
    if is_short(from) && is_short(to) {
        return json!({ "from": from, "to": to });
    }
    let shared = from.chars().zip(to.chars()).take_while(|(before, after)| before == after).count();
    let start = shared.saturating_sub(CONTEXT);
    json!({
        "from": cut(from, start), "to": cut(to, start), "from_sha256": sha256(from), "to_sha256": sha256(to),
    })
}

fn is_short(text: &str) -> bool {
    text.chars().nth(SHOWN).is_none()
}

/// Returns up to [`SHOWN`] characters from `start`, with an ellipsis at each end where text is omitted.
fn cut(text: &str, start: usize) -> String {
    let mut rest = text.chars().skip(start);
    let shown: String = rest.by_ref().take(SHOWN).collect();
    let (before, after) = (if start > 0 { "…" } else { "" }, if rest.next().is_some() { "…" } else { "" });
    format!("{before}{shown}{after}")
}

fn sha256(text: &str) -> String {
    hex(&Sha256::digest(text).into())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn side<'c>(change: &'c Value, name: &str) -> &'c str {
        change[name].as_str().unwrap()
    }

    #[test]
    fn short_values_are_shown_in_full_and_unchanged_fields_are_omitted() {
        let changes = Changes::of([("owner", "a", "b"), ("name", "same", "same"), ("note", "", "é")]);
        assert_eq!(changes.fields(), ["owner", "note"]);
        let expected = json!({ "owner": { "from": "a", "to": "b" }, "note": { "from": "", "to": "é" } });
        assert_eq!(json!(changes), expected);
        assert!(Changes::of([("owner", "a", "a")]).is_empty());
    }

    #[test]
    fn long_values_are_cut_around_the_first_difference() {
        let same = "é".repeat(5_000);
        let change = change(&format!("{same}old{same}"), &format!("{same}new{same}"));
        assert_eq!(side(&change, "from"), format!("…{}old{}…", "é".repeat(100), "é".repeat(897)));
        assert_eq!(side(&change, "to"), format!("…{}new{}…", "é".repeat(100), "é".repeat(897)));
        assert_eq!(side(&change, "from_sha256"), sha256(&format!("{same}old{same}")));
        assert_eq!(side(&change, "to_sha256"), sha256(&format!("{same}new{same}")));
    }

    #[test]
    fn both_values_are_hashed_if_only_one_is_long() {
        let change = change(&"x".repeat(1_001), "x");
        assert_eq!((side(&change, "from"), side(&change, "to")), (format!("{}…", "x".repeat(1_000)).as_str(), "x"));
        assert_eq!(side(&change, "to_sha256"), sha256("x"));
    }

    proptest! {
        #[test]
        fn different_values_never_look_the_same(
            shared in "[a…]{0,3}", times in 0_usize..900, from in "[a…]{0,1200}", to in "[a…]{0,1200}",
        ) {
            let shared = shared.repeat(times);
            let (from, to) = (format!("{shared}{from}"), format!("{shared}{to}"));
            prop_assume!(from != to);
            let change = change(&from, &to);
            prop_assert_ne!(&change["from"], &change["to"]);
            prop_assert!(side(&change, "from").chars().count() <= SHOWN + 2);
            prop_assert_eq!(change["from_sha256"] == change["to_sha256"], is_short(&from) && is_short(&to));
        }
    }
}
