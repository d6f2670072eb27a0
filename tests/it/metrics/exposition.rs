//! A strict parser of the Prometheus text format (version 0.0.4).

use std::collections::BTreeMap;

/// The labels of a series.
pub type Labels = BTreeMap<String, String>;

/// All metrics of a scrape.
#[derive(Debug, Default)]
pub struct Exposition {
    pub families: BTreeMap<String, Family>,
}

/// A metric with its series. A histogram has one for each part: `_bucket`, `_sum` and `_count`.
#[derive(Debug)]
pub struct Family {
    pub kind: String,
    pub help: String,
    pub samples: BTreeMap<(String, Labels), f64>,
}

impl Exposition {
    /// Parses a scrape.
    ///
    /// # Panics
    /// If the text breaks a rule of the format.
    #[track_caller]
    pub fn parse(text: &str) -> Self {
        assert!(text.ends_with('\n'), "the last line must end");
        let mut parsed = Self::default();
        let mut current: Option<(String, String)> = None;
        for line in text.lines().filter(|line| !line.is_empty()) {
            if let Some(rest) = line.strip_prefix("# HELP ") {
                let (name, help) = rest.split_once(' ').unwrap_or_else(|| panic!("no help: {line}"));
                assert!(is_name(name) && !help.trim().is_empty(), "{line}");
                current = Some((name.to_owned(), help.to_owned()));
            } else if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest.split_once(' ').unwrap_or_else(|| panic!("no type: {line}"));
                let (described, help) = current.clone().unwrap_or_else(|| panic!("no help before: {line}"));
                assert!(described == name && ["counter", "gauge", "histogram"].contains(&kind), "{line}");
                let family = Family { kind: kind.to_owned(), help, samples: BTreeMap::new() };
                let earlier = parsed.families.insert(name.to_owned(), family);
                assert!(earlier.is_none(), "a metric must not appear twice: {line}");
            } else {
                assert!(!line.starts_with('#'), "an unknown comment: {line}");
                let (name, _) = current.as_ref().unwrap_or_else(|| panic!("no type before: {line}"));
                parsed.families.get_mut(name).unwrap().add(name, line);
            }
        }
        for (name, family) in &parsed.families {
            family.check(name);
        }
        parsed
    }

    /// Returns the value of one series.
    #[track_caller]
    pub fn value(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let labels: Labels = labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let family = ["_bucket", "_sum", "_count"].iter().find_map(|part| self.families.get(name.strip_suffix(part)?));
        let family = self.families.get(name).or(family).unwrap_or_else(|| panic!("no metric {name}"));
        let value = family.samples.get(&(name.to_owned(), labels.clone()));
        *value.unwrap_or_else(|| panic!("no series {name}{labels:?}"))
    }

    /// Returns every series, without its value.
    pub fn series(&self) -> Vec<(String, Labels)> {
        self.families.values().flat_map(|family| family.samples.keys().cloned()).collect()
    }

    /// Returns the series that are not zero.
    pub fn differing_from_zero(&self) -> Vec<(String, Labels, f64)> {
        let samples = self.families.values().flat_map(|family| &family.samples);
        samples
            .filter(|(_, value)| **value != 0.0)
            .map(|((name, labels), value)| (name.clone(), labels.clone(), *value))
            .collect()
    }
}

impl Family {
    fn add(&mut self, family: &str, line: &str) {
        let (series, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("no value: {line}"));
        let value: f64 = value.parse().unwrap_or_else(|_| panic!("no number: {line}"));
        let (name, labels) = match series.split_once('{') {
            None => (series, Labels::new()),
            Some((name, labels)) => (name, parse_labels(labels, line)),
        };
        let parts = if self.kind == "histogram" { vec!["_bucket", "_sum", "_count"] } else { vec![""] };
        assert!(parts.iter().any(|part| name == format!("{family}{part}")), "not a part of {family}: {line}");
        assert!(is_name(name), "{line}");
        let earlier = self.samples.insert((name.to_owned(), labels), value);
        assert!(earlier.is_none(), "a series must not appear twice: {line}");
    }

    fn check(&self, name: &str) {
        assert!(!self.samples.is_empty(), "{name} has no series");
        if self.kind == "counter" {
            assert!(name.ends_with("_total"), "{name} is a counter");
            assert!(self.samples.values().all(|value| *value >= 0.0), "{name}");
        }
        if self.kind == "histogram" {
            self.check_buckets(name);
        }
    }

    /// Buckets are cumulative, and the last one has all observations.
    fn check_buckets(&self, name: &str) {
        let mut buckets = BTreeMap::<Labels, Vec<(f64, f64)>>::new();
        for ((part, labels), value) in &self.samples {
            if !part.ends_with("_bucket") {
                assert!(!labels.contains_key("le"), "{part}");
                continue;
            }
            let mut labels = labels.clone();
            let bound = labels.remove("le").unwrap_or_else(|| panic!("{part} has no bound"));
            let bound = if bound == "+Inf" { f64::INFINITY } else { bound.parse().unwrap() };
            buckets.entry(labels).or_default().push((bound, *value));
        }
        let count = |labels: &Labels| self.samples[&(format!("{name}_count"), labels.clone())];
        for (labels, mut bounds) in buckets {
            bounds.sort_by(|a, b| a.0.total_cmp(&b.0));
            assert!(bounds.is_sorted_by_key(|(_, value)| *value), "{name}{labels:?}: {bounds:?}");
            assert_eq!(*bounds.last().unwrap(), (f64::INFINITY, count(&labels)), "{name}{labels:?}");
            assert!(self.samples.contains_key(&(format!("{name}_sum"), labels.clone())), "{name}{labels:?}");
        }
    }
}

fn parse_labels(text: &str, line: &str) -> Labels {
    let mut labels = Labels::new();
    let mut rest = text;
    loop {
        let (name, value) = rest.split_once("=\"").unwrap_or_else(|| panic!("no label: {line}"));
        assert!(is_name(name) && !name.contains(':'), "{line}");
        let mut unescaped = String::new();
        let mut characters = value.char_indices();
        let end = loop {
            match characters.next().unwrap_or_else(|| panic!("the value does not end: {line}")) {
                (at, '"') => break at,
                (_, '\\') => unescaped.push(match characters.next().map(|(_, c)| c) {
                    Some('n') => '\n',
                    Some(c @ ('"' | '\\')) => c,
                    other => panic!("unknown escape {other:?}: {line}"),
                }),
                (_, c) => unescaped.push(c),
            }
        };
        let earlier = labels.insert(name.to_owned(), unescaped);
        assert!(earlier.is_none(), "a label must not appear twice: {line}");
        rest = &value[end + 1..];
        match rest.strip_prefix(',') {
            Some(next) => rest = next,
            None => break,
        }
    }
    assert_eq!(rest, "}", "{line}");
    labels
}

fn is_name(name: &str) -> bool {
    let is_start = |c: char| c.is_ascii_alphabetic() || c == '_' || c == ':';
    name.starts_with(is_start) && name.chars().all(|c| is_start(c) || c.is_ascii_digit())
}

#[test]
fn the_parser_reads_what_the_format_allows() {
    let text = "# HELP a_total A.\n# TYPE a_total counter\na_total{x=\"1 \\\"\\\\\\n\",y=\"}\"} 2\n\n\
        # HELP b B.\n# TYPE b histogram\nb_bucket{le=\"1\"} 1\nb_bucket{le=\"+Inf\"} 3\nb_sum 4.5\nb_count 3\n";
    let parsed = Exposition::parse(text);
    assert!((parsed.value("a_total", &[("x", "1 \"\\\n"), ("y", "}")]) - 2.0).abs() < f64::EPSILON);
    assert!((parsed.value("b_count", &[]) - 3.0).abs() < f64::EPSILON);
    assert_eq!(parsed.families.len(), 2);
}

#[test]
fn the_parser_rejects_what_breaks_the_format() {
    let counter = "# HELP a_total A.\n# TYPE a_total counter\n";
    let histogram = "# HELP b B.\n# TYPE b histogram\n";
    for (before, after) in [
        ("", "a_total 1\n"),
        ("# TYPE a_total counter\n", "a_total 1\n"),
        (counter, "a_total 1\na_total 2\n"),
        (counter, "a_total one\n"),
        (counter, "a_total{x=\"1} 1\n"),
        (counter, "a_total{x=\"1\",x=\"2\"} 1\n"),
        (counter, "b_total 1\n"),
        (counter, "a_total 1"),
        (counter, ""),
        ("# HELP a A.\n# TYPE a counter\n", "a 1\n"),
        (histogram, "b_bucket{le=\"1\"} 2\nb_bucket{le=\"+Inf\"} 1\nb_sum 1\nb_count 1\n"),
        (histogram, "b_bucket{le=\"+Inf\"} 1\nb_sum 1\nb_count 2\n"),
    ] {
        let text = format!("{before}{after}");
        let parsed = std::panic::catch_unwind(|| Exposition::parse(&text));
        assert!(parsed.is_err(), "{text}");
    }
}
