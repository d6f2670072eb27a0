//! The dashboard and the alert rules name metrics and labels that exist. `tests/metrics/run` checks them with promtool.

use std::{collections::BTreeSet, fs, path::Path};

use aims::telemetry::metrics::table::{self, Kind, Values};
use regex::Regex;
use serde_json::Value;

fn read(file: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy").join(file);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Every name under which a series of a metric is stored, with the metric.
fn series() -> Vec<(String, &'static table::Metric)> {
    let parts = |metric: &table::Metric| match metric.kind {
        Kind::Histogram(_) => vec!["_bucket", "_sum", "_count"],
        Kind::Counter | Kind::Gauge => vec![""],
    };
    table::all()
        .flat_map(|metric| parts(metric).into_iter().map(move |part| (format!("{}{part}", metric.name), metric)))
        .collect()
}

/// Checks every selector of a query, and returns the names of the metrics.
#[track_caller]
fn check(query: &str) -> BTreeSet<String> {
    let known = series();
    let names = Regex::new(r"\b((?:aims|process)_[a-z_]+)(?:\{([^}]*)\})?").unwrap();
    let labels = Regex::new("([a-z_]+)(=~|=|!=|!~)\"([^\"]*)\"").unwrap();
    let mut found = BTreeSet::new();
    for selector in names.captures_iter(query) {
        let name = &selector[1];
        let (_, metric) =
            known.iter().find(|(known, _)| known == name).unwrap_or_else(|| panic!("{name} does not exist: {query}"));
        let matchers = selector.get(2).into_iter().flat_map(|matchers| labels.captures_iter(matchers.as_str()));
        for matcher in matchers {
            let (label, value) = (&matcher[1], &matcher[3]);
            // Added by Prometheus.
            if ["job", "instance"].contains(&label) {
                continue;
            }
            let label = metric.labels.iter().find(|known| known.name == label);
            let label = label.unwrap_or_else(|| panic!("{name} has no such label: {query}"));
            if let Values::Fixed(values) = label.values {
                let unknown = value.split('|').find(|value| !values.contains(value));
                assert!(unknown.is_none(), "{name} has no such value: {query}");
            }
        }
        found.insert(metric.name.to_owned());
    }
    found
}

#[test]
fn the_dashboard_uses_metrics_that_exist() {
    let dashboard: Value = serde_json::from_str(&read("grafana/aims.json")).unwrap();
    let mut shown = BTreeSet::new();
    let mut identifiers = BTreeSet::new();
    for panel in dashboard["panels"].as_array().unwrap() {
        assert!(identifiers.insert(panel["id"].as_i64().unwrap()), "{panel}");
        assert!(!panel["title"].as_str().unwrap().is_empty(), "{panel}");
        if panel["type"] == "row" {
            continue;
        }
        assert_eq!(panel["datasource"]["uid"], "${datasource}", "{panel}");
        for target in panel["targets"].as_array().unwrap() {
            let query = target["expr"].as_str().unwrap();
            assert!(query.contains("instance=~\"$instance\""), "{query}");
            let names = check(query);
            assert!(!names.is_empty(), "{query}");
            shown.extend(names);
        }
    }
    let unshown: Vec<_> = table::all().map(|metric| metric.name).filter(|name| !shown.contains(*name)).collect();
    // Limits of other numbers, and what says little on a graph.
    let expected =
        ["aims_http_requests_aborted_total", "process_max_fds", "process_virtual_memory_bytes", "process_threads"];
    assert_eq!(unshown, expected);
}

#[test]
fn the_alerts_use_metrics_that_exist() {
    let rules = read("prometheus/alerts.yml");
    let queries = Regex::new(r"(?m)^ +expr: (?:\|\n(?:(?:          .*)\n)+|.*\n)").unwrap();
    let found: Vec<_> = queries.find_iter(&rules).map(|query| check(query.as_str())).collect();
    assert_eq!(found.len(), rules.matches("- alert:").count());
    assert!(found.len() > 8, "{found:?}");
}

#[test]
fn every_alert_has_a_test() {
    let (rules, tests) = (read("prometheus/alerts.yml"), read("prometheus/alerts.test.yml"));
    let names = Regex::new(r"(?m)^ +- alert: (\w+)$").unwrap();
    for name in names.captures_iter(&rules) {
        let tested = tests.matches(&format!("alertname: {}\n", &name[1])).count();
        assert!(tested >= 2, "{} needs a test in which it fires and one in which it does not", &name[1]);
    }
}
