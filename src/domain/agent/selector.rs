//! Selectors: conditions on the labels of an agent, such as `env=prod,team!=mail,tier in (a,b),!legacy`.

use std::{collections::BTreeSet, fmt};

use super::labels::{Labels, Quoted, is_plain, parse_key};
use crate::domain::{invalid::Invalid, text};

/// Conditions on labels. All of them must hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selector(Vec<Term>);

/// A condition on one label.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Term {
    /// The key of the label.
    pub key: String,
    /// What must hold for it.
    pub condition: Condition,
}

/// What must hold for a label. Values are compared exactly, in the same case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Condition {
    /// The agent has the label, with any value.
    Present,
    /// The agent does not have the label.
    Absent,
    /// The agent has the label with one of these values.
    In(BTreeSet<String>),
    /// The agent does not have the label, or has it with another value.
    NotIn(BTreeSet<String>),
}

impl Selector {
    /// Maximum length of a selector, in characters.
    pub const MAX_LEN: usize = 1_024;
    /// Maximum number of conditions.
    pub const TERMS_MAX: usize = 16;
    /// Maximum number of values in one condition.
    pub const VALUES_MAX: usize = 32;

    /// Parses conditions that are separated by commas: `key`, `!key`, `key=value`, `key!=value`, `key in (value,value)`
    /// and `key notin (value,value)`. A value with other characters than letters, digits and `._/:@+-` is in double
    /// quotes, in which a backslash escapes quotes and backslashes.
    ///
    /// # Errors
    /// If the text is anything else, or longer than the limits. The message says where.
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        if text.chars().count() > Self::MAX_LEN {
            return Err(Invalid::TooLong(Self::MAX_LEN));
        }
        let mut parser = Parser { text, rest: text };
        let mut terms = Vec::new();
        loop {
            terms.push(parser.term()?);
            if terms.len() > Self::TERMS_MAX {
                return Err(Invalid::new("selector", format!("A selector has at most {} conditions", Self::TERMS_MAX)));
            }
            if parser.rest.is_empty() {
                return Ok(Self(terms));
            }
            if !parser.eat(",") {
                return Err(parser.expected("a comma or the end; put a value with other characters in double quotes"));
            }
        }
    }

    /// Returns the conditions.
    #[must_use]
    pub fn terms(&self) -> &[Term] {
        &self.0
    }

    /// Returns true if labels fulfil every condition.
    #[must_use]
    pub fn matches(&self, labels: &Labels) -> bool {
        self.0.iter().all(|term| match (&term.condition, labels.get(&term.key)) {
            (Condition::Present, value) => value.is_some(),
            (Condition::Absent, value) => value.is_none(),
            (Condition::In(values), value) => value.is_some_and(|value| values.contains(value)),
            (Condition::NotIn(values), value) => value.is_none_or(|value| !values.contains(value)),
        })
    }
}

impl Term {
    /// The condition that a label has a value.
    #[must_use]
    pub fn equals(key: &str, value: &str) -> Self {
        Self { key: key.to_owned(), condition: Condition::In(BTreeSet::from([value.to_owned()])) }
    }

    /// Returns the value that the label must have, if only one will do.
    #[must_use]
    pub fn only_value(&self) -> Option<&str> {
        match &self.condition {
            Condition::In(values) if values.len() == 1 => values.first().map(String::as_str),
            _ => None,
        }
    }
}

impl fmt::Display for Term {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (one, many, values) = match &self.condition {
            Condition::Present => return f.write_str(&self.key),
            Condition::Absent => return write!(f, "!{}", self.key),
            Condition::In(values) => ("=", "in", values),
            Condition::NotIn(values) => ("!=", "notin", values),
        };
        let quoted: Vec<_> = values.iter().map(|value| Quoted(value).to_string()).collect();
        if let [value] = quoted.as_slice() {
            return write!(f, "{}{one}{value}", self.key);
        }
        let listed: Vec<_> = quoted.iter().map(|value| if value.is_empty() { "\"\"" } else { value }).collect();
        write!(f, "{} {many} ({})", self.key, listed.join(","))
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let terms: Vec<_> = self.0.iter().map(Term::to_string).collect();
        f.write_str(&terms.join(","))
    }
}

struct Parser<'t> {
    text: &'t str,
    rest: &'t str,
}

impl<'t> Parser<'t> {
    fn expected(&self, what: &str) -> Invalid {
        let before = self.text.len() - self.rest.len();
        let place = self.text.get(..before).unwrap_or_default().chars().count() + 1;
        Invalid::new("selector", format!("At character {place} of the selector: expected {what}"))
    }

    fn eat(&mut self, token: &str) -> bool {
        let rest = self.rest.strip_prefix(token);
        self.rest = rest.unwrap_or(self.rest);
        rest.is_some()
    }

    /// Skips spaces. Returns true if there were any.
    fn spaces(&mut self) -> bool {
        let before = self.rest.len();
        self.rest = self.rest.trim_start_matches(' ');
        self.rest.len() < before
    }

    fn take_while(&mut self, allowed: impl Fn(char) -> bool) -> &'t str {
        let end = self.rest.find(|c| !allowed(c)).unwrap_or(self.rest.len());
        let (taken, rest) = self.rest.split_at(end);
        self.rest = rest;
        taken
    }

    fn term(&mut self) -> Result<Term, Invalid> {
        self.spaces();
        let is_absent = self.eat("!");
        let key = self.key()?;
        let is_apart = self.spaces();
        let condition = if is_absent {
            Condition::Absent
        } else if self.eat("!=") {
            Condition::NotIn(BTreeSet::from([self.value()?]))
        } else if self.eat("=") {
            Condition::In(BTreeSet::from([self.value()?]))
        } else if is_apart && self.eat("notin") {
            Condition::NotIn(self.list()?)
        } else if is_apart && self.eat("in") {
            Condition::In(self.list()?)
        } else {
            Condition::Present
        };
        self.spaces();
        Ok(Term { key, condition })
    }

    fn key(&mut self) -> Result<String, Invalid> {
        const EXPECTED: &str = "the key of a label: 1 to 63 lower-case letters, digits and ._/-, the first a letter or \
            a digit";
        let start = self.rest;
        let key = self.take_while(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || "._/-".contains(c));
        parse_key(key).map_err(|_| {
            self.rest = start;
            self.expected(EXPECTED)
        })
    }

    /// Reads a value, which is empty if there is none.
    fn value(&mut self) -> Result<String, Invalid> {
        self.spaces();
        let start = self.rest;
        let value = if self.eat("\"") { self.quoted()? } else { self.take_while(is_plain).to_owned() };
        text::line(&value, 0, Labels::VALUE_MAX).map_err(|invalid| {
            self.rest = start;
            self.expected(&format!("a value. {}", invalid.message()))
        })
    }

    fn quoted(&mut self) -> Result<String, Invalid> {
        let mut value = String::new();
        loop {
            value.push_str(self.take_while(|c| c != '"' && c != '\\'));
            if self.eat("\"") {
                return Ok(value);
            }
            if self.eat("\\\"") {
                value.push('"');
            } else if self.eat("\\\\") {
                value.push('\\');
            } else if self.rest.is_empty() {
                return Err(self.expected("a double quote that ends the value"));
            } else {
                return Err(self.expected("\\\" or \\\\ after a backslash"));
            }
        }
    }

    fn list(&mut self) -> Result<BTreeSet<String>, Invalid> {
        self.spaces();
        if !self.eat("(") {
            return Err(self.expected("values in parentheses, for example (a,b)"));
        }
        let mut values = BTreeSet::new();
        for _ in 0..Selector::VALUES_MAX {
            self.spaces();
            let start = self.rest;
            let value = self.value()?;
            if value.is_empty() && self.rest == start {
                return Err(self.expected("a value"));
            }
            values.insert(value);
            self.spaces();
            if self.eat(")") {
                return Ok(values);
            }
            if !self.eat(",") {
                return Err(self
                    .expected("a comma or a closing parenthesis; put a value with other characters in double quotes"));
            }
        }
        Err(self.expected(&format!("at most {} values", Selector::VALUES_MAX)))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn labels(text: &str) -> Labels {
        Labels::parse_lines(&text.replace(',', "\n")).unwrap()
    }

    #[test]
    fn selectors_are_read_and_written() {
        for (text, canonical) in [
            ("env=prod,team!=mail,tier in (a,b),!legacy", "env=prod,team!=mail,tier in (a,b),!legacy"),
            (" env = prod , team != mail ", "env=prod,team!=mail"),
            ("tier  notin( b , a,a )", "tier notin (a,b)"),
            ("tier in (a)", "tier=a"),
            ("key", "key"),
            ("in in (in),notin", "in=in,notin"),
            ("env=", "env="),
            ("env!=\"\",x", "env!=,x"),
            ("env in (\"\",a)", "env in (\"\",a)"),
            (r#"team="a, (b) \"c\" \\""#, r#"team="a, (b) \"c\" \\""#),
            ("team=\"plain\"", "team=plain"),
            ("team=\"Zoë\"", "team=\"Zoë\""),
            ("url=https://h:1/a@b+c", "url=https://h:1/a@b+c"),
        ] {
            let selector = Selector::parse(text).unwrap();
            assert_eq!(selector.to_string(), canonical, "{text}");
            assert_eq!(Selector::parse(canonical).unwrap(), selector);
        }
    }

    #[test]
    fn malformed_selectors_say_where_the_mistake_is() {
        for (text, place) in [
            ("", 1),
            ("  ", 3),
            (",", 1),
            ("a,", 3),
            ("a,,b", 3),
            ("Env=prod", 1),
            ("env==prod", 5),
            ("env=a b", 7),
            ("env=é", 5),
            ("a=1;b=2", 4),
            ("!", 2),
            ("! a", 2),
            ("!a=b", 3),
            ("a in", 5),
            ("a in b", 6),
            ("a in ()", 7),
            ("a in (b", 8),
            ("a in (b,)", 9),
            ("a in (b c)", 9),
            ("a=\"b", 5),
            ("a=\"b\\n\"", 5),
            ("a=\"b\"c", 6),
            ("a=\"b\u{202E}\"", 3),
            ("a>b", 2),
            ("a\tb", 2),
        ] {
            let message = Selector::parse(text).unwrap_err().message().into_owned();
            assert!(message.starts_with(&format!("At character {place} of the selector")), "{text:?}: {message}");
        }
    }

    #[test]
    fn limits_are_exact() {
        let key = "k".repeat(63);
        assert!(Selector::parse(&key).is_ok() && Selector::parse(&format!("{key}k")).is_err());
        let value = "v".repeat(128);
        assert!(Selector::parse(&format!("a={value}")).is_ok() && Selector::parse(&format!("a={value}v")).is_err());
        let terms = |count: usize| vec!["a"; count].join(",");
        assert!(Selector::parse(&terms(16)).is_ok() && Selector::parse(&terms(17)).is_err());
        let list = |count: usize| format!("a in ({})", vec!["b"; count].join(","));
        assert!(Selector::parse(&list(32)).is_ok() && Selector::parse(&list(33)).is_err());
        let long = |length: usize| format!("a{}", " ".repeat(length - 1));
        assert!(Selector::parse(&long(1_024)).is_ok());
        assert_eq!(Selector::parse(&long(1_025)).unwrap_err(), Invalid::TooLong(1_024));
    }

    #[test]
    fn negations_match_agents_without_the_label() {
        for (text, matching, others) in [
            ("env=prod", vec!["env=prod", "env=prod,x=y"], vec!["", "env=Prod", "env=test", "x=prod"]),
            ("env!=prod", vec!["", "env=test", "env=Prod"], vec!["env=prod"]),
            ("env", vec!["env=", "env=x"], vec!["", "other=env"]),
            ("!env", vec!["", "other=env"], vec!["env=", "env=x"]),
            ("env in (a,b)", vec!["env=a", "env=b"], vec!["", "env=c"]),
            ("env notin (a,b)", vec!["", "env=c"], vec!["env=a", "env=b"]),
            ("env=", vec!["env="], vec!["", "env=x"]),
            ("env=a,env=b", vec![], vec!["env=a", "env=b", ""]),
        ] {
            let selector = Selector::parse(text).unwrap();
            assert!(matching.iter().all(|given| selector.matches(&labels(given))), "{text} {matching:?}");
            assert!(others.iter().all(|given| !selector.matches(&labels(given))), "{text} {others:?}");
        }
    }

    proptest! {
        #[test]
        fn every_value_can_be_selected(value in "[a-zé ,()\"\\\\=!]{0,20}") {
            let term = Term::equals("key", &value);
            let selector = Selector::parse(&term.to_string()).unwrap();
            prop_assert_eq!(selector.terms(), [term]);
        }

        #[test]
        fn no_text_makes_the_parser_panic(text in "[a-z=!,() \"\\\\é]{0,30}") {
            if let Ok(selector) = Selector::parse(&text) {
                prop_assert_eq!(Selector::parse(&selector.to_string()).unwrap(), selector);
            }
        }
    }
}
