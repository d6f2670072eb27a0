//! Changes of the labels of many agents.

use std::{collections::BTreeSet, fmt};

use super::{
    labels::Labels,
    selector::{Condition, Selector},
};
use crate::domain::invalid::Invalid;

/// A change of the labels of many agents: some are set, others are removed, and all others stay.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LabelChange {
    set: Labels,
    remove: BTreeSet<String>,
}

impl LabelChange {
    /// A change that removes labels and then sets others.
    #[must_use]
    pub fn new(set: Labels, remove: impl IntoIterator<Item = String>) -> Self {
        let remove = remove.into_iter().filter(|key| set.get(key).is_none()).collect();
        Self { set, remove }
    }

    /// Reads a change in the form of a selector of the agents that need none: `env=prod,!legacy` sets `env` and removes
    /// `legacy`.
    ///
    /// # Errors
    /// If the text is not a selector, has another condition, or names a key twice.
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        let selector = Selector::parse(text)?;
        let mut keys = BTreeSet::new();
        if let Some(term) = selector.terms().iter().find(|term| !keys.insert(&term.key)) {
            return Err(Invalid::new("duplicate", format!("The key {} should be given once", term.key)));
        }
        let (mut set, mut remove) = (Vec::new(), Vec::new());
        for term in selector.terms() {
            match (&term.condition, term.only_value()) {
                (_, Some(value)) => set.push((term.key.as_str(), value)),
                (Condition::Absent, None) => remove.push(term.key.clone()),
                _ => {
                    let message = format!("Write key=value to set a label or !key to remove one, not {term}");
                    return Err(Invalid::new("label_change", message));
                }
            }
        }
        Ok(Self::new(Labels::parse(set)?, remove))
    }

    /// Returns the labels after the change.
    ///
    /// # Errors
    /// If there are more than [`Labels::MAX`].
    pub fn apply(&self, labels: &Labels) -> Result<Labels, Invalid> {
        labels.only(|key| !self.remove.contains(key)).with(&self.set)
    }

    /// Returns those of these labels that the change sets or removes.
    #[must_use]
    pub fn touched(&self, labels: &Labels) -> Labels {
        labels.only(|key| self.remove.contains(key) || self.set.get(key).is_some())
    }

    /// Returns the change that brings back `previous`, the labels that this change touched.
    #[must_use]
    pub fn reverse(&self, previous: Labels) -> Self {
        let set = self.set.iter().map(|(key, _)| key.to_owned());
        Self::new(previous, self.remove.iter().cloned().chain(set))
    }
}

impl fmt::Display for LabelChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.set.fmt(f)?;
        for (number, key) in self.remove.iter().enumerate() {
            let separator = if number == 0 && self.set.is_empty() { "" } else { "," };
            write!(f, "{separator}!{key}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_sets_and_removes_and_can_be_reversed() {
        let change = LabelChange::parse("env=prod, !legacy,team=\"a, b\"").unwrap();
        assert_eq!(change.to_string(), "env=prod,team=\"a, b\",!legacy");
        assert_eq!(LabelChange::parse(&change.to_string()).unwrap(), change);
        let before = Labels::parse([("env", "test"), ("legacy", "yes"), ("other", "x")]).unwrap();
        let after = change.apply(&before).unwrap();
        assert_eq!(after.to_string(), "env=prod,other=x,team=\"a, b\"");
        assert!(Selector::parse(&change.to_string()).unwrap().matches(&after));
        assert_eq!(change.reverse(change.touched(&before)).apply(&after).unwrap(), before);
        for bad in ["", "env", "env!=a", "env in (a,b)", "env=a,env=b", "env=a,!env", "env notin (a)", "ENV=a"] {
            assert!(LabelChange::parse(bad).is_err(), "{bad}");
        }
        assert_eq!(LabelChange::new(after.clone(), ["env".to_owned()]), LabelChange::new(after, []));
        assert_eq!(LabelChange::parse("!a").unwrap().to_string(), "!a");
    }

    #[test]
    fn a_change_cannot_exceed_the_number_of_labels() {
        let keys: Vec<_> = (0..32).map(|number| format!("k{number}")).collect();
        let full = Labels::parse(keys.iter().map(|key| (key.as_str(), "v"))).unwrap();
        assert!(LabelChange::parse("one=more").unwrap().apply(&full).is_err());
        assert!(LabelChange::parse("one=more,!k0").unwrap().apply(&full).is_ok());
        assert!(LabelChange::parse("k0=other").unwrap().apply(&full).is_ok());
    }
}
