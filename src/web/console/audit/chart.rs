//! The chart of the list: its records by time. A bar leads to its records, with the same filters.

use super::filters::LIST;
use crate::{
    domain::{
        Result, Timestamp,
        audit::{Buckets, Filter},
    },
    service::{Caller, Services, audit::chart},
    web::console::page::{
        chart::{Chart, Column, Series},
        frame::Moment,
        query::Params,
    },
};

const DAY: i64 = 86_400;

/// Draws the records that match the filter. `params` are the filters of the list. The time is that of the first record that is
/// counted, if not all are.
pub(super) async fn of(
    services: &Services,
    caller: &Caller,
    filter: &Filter,
    params: &Params,
) -> Result<Option<(Chart, Option<Moment>)>> {
    let Some(chart::Chart { buckets, counts }) = chart::of(services, caller, filter).await? else { return Ok(None) };
    let between = |(from, until): (Timestamp, Timestamp), outcome: &str| {
        // Seconds are enough: the end includes its second.
        let (from, until) = (second(from), second(until));
        let period = params.with("range", "").with("from", &from).with("until", &until);
        Some(if outcome.is_empty() { period } else { period.with("outcome", outcome) }.href(LIST))
    };
    let columns = counts.buckets.iter().enumerate().map(|(bucket, count)| {
        let bounds = buckets.bounds(bucket);
        let link = |count: i64, outcome| if count > 0 { between(bounds, outcome) } else { None };
        Column {
            label: label(bounds.0, &buckets),
            name: name(bounds, &buckets),
            href: link(count.success + count.failure, ""),
            values: vec![
                (count.success, link(count.success, "success")),
                (count.failure, link(count.failure, "failure")),
            ],
        }
    });
    let outcome = |outcome: &str| Some(params.with("outcome", outcome).href(LIST));
    let series = vec![Series::new("Success", outcome("success")), Series::new("Failure", outcome("failure"))];
    let drawn = Chart::new("records", "Records over time", "Time (UTC)", series, columns.collect());
    let now = services.env.now();
    Ok(Some((drawn, counts.since.map(|since| Moment::at(since, now)))))
}

/// Formats a time for the URL, without a fraction of a second.
fn second(at: Timestamp) -> String {
    let iso = at.to_string();
    iso.get(..19).unwrap_or(&iso).to_owned()
}

fn part(at: Timestamp, range: std::ops::Range<usize>) -> String {
    at.to_string().get(range).unwrap_or_default().to_owned()
}

/// The text below a bar: the time of day, or the date.
fn label(at: Timestamp, buckets: &Buckets) -> String {
    let (from, until) = buckets.period();
    match until.as_secs() - from.as_secs() {
        ..=300 => part(at, 11..19),
        301..=129_600 => part(at, 11..16),
        _ if buckets.seconds() < 30 * DAY => part(at, 5..10),
        _ => part(at, 0..7),
    }
}

/// The full name of a bar.
fn name((from, until): (Timestamp, Timestamp), buckets: &Buckets) -> String {
    let date = part(from, 0..10);
    match buckets.seconds() {
        DAY => date,
        seconds if seconds > DAY => format!("{date} to {}", part(until, 0..10)),
        ..60 => format!("{date} {}", part(from, 11..19)),
        _ => {
            format!("{date} {} to {}", part(from, 11..16), part(Timestamp::from_micros(until.as_micros() + 1), 11..16))
        }
    }
}
