//! Bar charts, drawn as SVG on the server. A template shows one with `{% include "chart.html" %}`, which needs a variable
//! `chart`.
//!
//! Widths are percentages and heights are pixels, so text and patterns are never stretched. The drawing is hidden from
//! screen readers and its bars are no tab stops: the table beneath it has the same numbers and links.

use super::{grouped, range::Range};
use crate::domain::{Timestamp, audit::Bucket};

/// Height of the bars.
const HEIGHT: i64 = 160;
/// Space above the bars, for the upper half of the highest label of the scale.
const TOP: i64 = 10;
/// Maximum number of steps of the scale.
const STEPS: i64 = 4;
/// Maximum number of labels below the bars. Where there is little space, every other label is hidden.
const LABELS: usize = 8;
/// Part of its column that a bar takes, in percent.
const BAR: usize = 72;

/// A bar chart.
pub(in crate::web::console) struct Chart {
    /// Identifies the chart on its page.
    pub(in crate::web::console) id: &'static str,
    /// Describes the chart for screen readers.
    pub(in crate::web::console) title: String,
    /// What a bar stands for: the heading of the first column of the table.
    pub(in crate::web::console) unit: &'static str,
    pub(in crate::web::console) series: Vec<Series>,
    pub(in crate::web::console) bars: Vec<Bar>,
    pub(in crate::web::console) ticks: Vec<Tick>,
}

/// One or two counts of each bar, stacked in this order.
pub(in crate::web::console) struct Series {
    pub(in crate::web::console) name: &'static str,
    pub(in crate::web::console) total: i64,
    /// Leads to what the total counts.
    pub(in crate::web::console) href: Option<String>,
}

impl Series {
    pub(in crate::web::console) const fn new(name: &'static str, href: Option<String>) -> Self {
        Self { name, total: 0, href }
    }
}

/// What a bar shows.
pub(in crate::web::console) struct Column {
    /// A short text below the bar; not every bar shows it.
    pub(in crate::web::console) label: String,
    /// The full name.
    pub(in crate::web::console) name: String,
    /// Leads to everything that the bar stands for.
    pub(in crate::web::console) href: Option<String>,
    /// For each series the count, and a link to what it counts.
    pub(in crate::web::console) values: Vec<(i64, Option<String>)>,
}

/// A bar as it is drawn.
pub(in crate::web::console) struct Bar {
    pub(in crate::web::console) column: Column,
    /// Where the column starts and how wide it is, in percent.
    pub(in crate::web::console) left: String,
    pub(in crate::web::console) width: String,
    /// The bar itself.
    pub(in crate::web::console) inner_left: String,
    pub(in crate::web::console) inner_width: String,
    pub(in crate::web::console) middle: String,
    pub(in crate::web::console) parts: Vec<Part>,
    /// Whether the label is shown.
    pub(in crate::web::console) has_label: bool,
    /// Whether the label is hidden where there is little space.
    pub(in crate::web::console) is_minor: bool,
}

/// The part of a bar that stands for one series.
pub(in crate::web::console) struct Part {
    pub(in crate::web::console) series: usize,
    pub(in crate::web::console) y: i64,
    pub(in crate::web::console) height: i64,
}

/// A step of the scale.
pub(in crate::web::console) struct Tick {
    pub(in crate::web::console) y: i64,
    pub(in crate::web::console) label: String,
}

impl Chart {
    pub(in crate::web::console) const HEIGHT: i64 = TOP + HEIGHT + 24;
    /// Where the bars stand.
    pub(in crate::web::console) const BASE: i64 = TOP + HEIGHT;
    /// The line of the labels below the bars.
    pub(in crate::web::console) const LABELS: i64 = TOP + HEIGHT + 17;

    /// Draws a chart. The totals of the series are those of the columns.
    pub(in crate::web::console) fn new(
        id: &'static str,
        title: impl Into<String>,
        unit: &'static str,
        mut series: Vec<Series>,
        columns: Vec<Column>,
    ) -> Self {
        for (place, series) in series.iter_mut().enumerate() {
            series.total = columns.iter().filter_map(|column| column.values.get(place)).map(|(count, _)| count).sum();
        }
        let most = columns.iter().map(|column| column.values.iter().map(|(count, _)| count).sum()).max().unwrap_or(0);
        let step = step(most);
        let top = ((most.max(1) - 1) / step + 1).saturating_mul(step);
        let ticks = (0..=top / step).map(|number| {
            let value = number * step;
            Tick { y: TOP + HEIGHT - scaled(value, top), label: short(value) }
        });
        let ticks = ticks.collect();
        let all = columns.len();
        let every = all.div_ceil(LABELS).max(1);
        let bar = |(place, column): (usize, Column)| Bar {
            left: percent(place * 100, all),
            width: percent(100, all),
            inner_left: percent(place * 100 + (100 - BAR) / 2, all),
            inner_width: percent(BAR, all),
            middle: percent(place * 100 + 50, all),
            parts: parts(&column.values, top),
            has_label: place % every == 0,
            is_minor: (place / every) % 2 == 1,
            column,
        };
        let bars = columns.into_iter().enumerate().map(bar).collect();
        Self { id, title: title.into(), unit, series, bars, ticks }
    }

    /// Returns true if there is nothing to draw.
    pub(in crate::web::console) fn is_empty(&self) -> bool {
        self.series.iter().all(|series| series.total == 0)
    }

    /// Draws issued tokens and refused requests. `href` returns a link to the audit log from one time to another, or to what
    /// was refused in it; `None` for no link.
    pub(in crate::web::console) fn of_activity(
        id: &'static str,
        range: Range,
        buckets: &[Bucket],
        href: impl Fn(Timestamp, Timestamp, bool) -> Option<String>,
    ) -> Self {
        let (each, unit) = match range {
            Range::Day => ("per hour", "Hour (UTC)"),
            Range::Week => ("per 6 hours", "6 hours (UTC)"),
            Range::Month | Range::Quarter => ("per day", "Day (UTC)"),
        };
        let columns = buckets.iter().map(|bucket| {
            let (from, until) = (bucket.starts_at, bucket.last_instant());
            let refused = if bucket.activity.refused > 0 { href(from, until, true) } else { None };
            let any = bucket.activity.issued + bucket.activity.refused > 0;
            Column {
                label: label(bucket, range),
                name: name(bucket, range),
                href: if any { href(from, until, false) } else { None },
                values: vec![(bucket.activity.issued, None), (bucket.activity.refused, refused)],
            }
        });
        let whole = buckets.first().zip(buckets.last()).map(|(first, last)| (first.starts_at, last.last_instant()));
        let refused = whole.and_then(|(from, until)| href(from, until, true));
        let series = vec![Series::new("Issued", None), Series::new("Refused", refused)];
        let title = format!("Tokens issued and requests refused {each}, last {}", super::range::label(range));
        Self::new(id, title, unit, series, columns.collect())
    }
}

impl Series {
    /// Returns the total with separators between thousands.
    pub(in crate::web::console) fn total(&self) -> String {
        grouped(self.total)
    }
}

impl Bar {
    /// Returns the name and the counts of the bar, for the pointer: `29 Nov 2026: Issued 12, Refused 3`.
    pub(in crate::web::console) fn summary(&self, series: &[Series]) -> String {
        let counts = series.iter().zip(&self.column.values);
        let counts: Vec<_> =
            counts.map(|(series, (count, _))| format!("{} {}", series.name, grouped(*count))).collect();
        format!("{}: {}", self.column.name, counts.join(", "))
    }

    /// Returns for each series its name, the count and a link to what it counts.
    pub(in crate::web::console) fn cells<'c>(
        &'c self,
        series: &'c [Series],
    ) -> impl Iterator<Item = (&'static str, String, Option<&'c str>)> {
        let cells = series.iter().zip(&self.column.values);
        cells.map(|(series, (count, href))| (series.name, grouped(*count), href.as_deref()))
    }
}

fn parts(values: &[(i64, Option<String>)], top: i64) -> Vec<Part> {
    let mut parts = Vec::new();
    let mut base = TOP + HEIGHT;
    for (series, (count, _)) in values.iter().enumerate().filter(|(_, (count, _))| *count > 0) {
        // Counts above zero stay visible.
        let height = scaled(*count, top).max(3);
        base = (base - height).max(0);
        // A line of the background separates the parts.
        parts.push(Part { series, y: base, height: height - 1 });
    }
    parts
}

fn scaled(count: i64, top: i64) -> i64 {
    i64::try_from(i128::from(count) * i128::from(HEIGHT) / i128::from(top.max(1))).unwrap_or(HEIGHT)
}

/// Returns the distance between the steps of a scale: a round number, so that at most [`STEPS`] steps reach `most`.
fn step(most: i64) -> i64 {
    let mut unit = 1_i64;
    loop {
        for factor in [1, 2, 5] {
            let step = unit.saturating_mul(factor);
            if step.saturating_mul(STEPS) >= most {
                return step;
            }
        }
        unit = unit.saturating_mul(10);
    }
}

/// Returns `part / of` percent with three decimals, which is finer than a pixel.
fn percent(part: usize, of: usize) -> String {
    let thousandths = part * 1_000 / of.max(1);
    format!("{}.{:03}%", thousandths / 1_000, thousandths % 1_000)
}

/// Formats a step of a scale: `250`, `1.5k`, `20M`.
fn short(count: i64) -> String {
    let (unit, suffix) = match count {
        ..1_000 => return count.to_string(),
        1_000..1_000_000 => (1_000, "k"),
        1_000_000..1_000_000_000 => (1_000_000, "M"),
        _ => (1_000_000_000, "G"),
    };
    let tenths = count / (unit / 10);
    if tenths % 10 == 0 {
        format!("{}{suffix}", tenths / 10)
    } else {
        format!("{}.{}{suffix}", tenths / 10, tenths % 10)
    }
}

/// Formats the start of a bucket for the place below its bar.
fn label(bucket: &Bucket, range: Range) -> String {
    let iso = bucket.starts_at.to_string();
    if range == Range::Day { clock(&iso).to_owned() } else { day(&iso) }
}

/// Formats a bucket: `29 Nov 2026, 14:00 to 15:00`.
fn name(bucket: &Bucket, range: Range) -> String {
    let iso = bucket.starts_at.to_string();
    let date = format!("{} {}", day(&iso), iso.get(..4).unwrap_or_default());
    if range.step() >= 24 {
        return date;
    }
    format!("{date}, {} to {}", clock(&iso), clock(&bucket.ends_at.to_string()))
}

fn clock(iso: &str) -> &str {
    iso.get(11..16).unwrap_or_default()
}

/// Formats the day of an RFC 3339 time: `29 Nov`.
fn day(iso: &str) -> String {
    const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let number = |at: std::ops::Range<usize>| iso.get(at).and_then(|text| text.parse::<usize>().ok()).unwrap_or(1);
    let month = MONTHS.get(number(5..7).saturating_sub(1)).copied().unwrap_or_default();
    format!("{} {month}", number(8..10))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chart(counts: &[[i64; 2]]) -> Chart {
        let column = |counts: &[i64; 2]| Column {
            label: String::new(),
            name: "n".to_owned(),
            href: None,
            values: counts.iter().map(|count| (*count, None)).collect(),
        };
        let series = vec![Series::new("Issued", None), Series::new("Refused", None)];
        Chart::new("c", "Chart", "Hour", series, counts.iter().map(column).collect())
    }

    #[test]
    fn the_scale_has_round_steps_that_reach_the_highest_bar() {
        let labels = |most: i64| {
            let ticks = chart(&[[most, 0]]).ticks;
            ticks.into_iter().map(|tick| tick.label).collect::<Vec<_>>()
        };
        assert_eq!(labels(0), ["0", "1"]);
        assert_eq!(labels(3), ["0", "1", "2", "3"]);
        assert_eq!(labels(17), ["0", "5", "10", "15", "20"]);
        assert_eq!(labels(1_200), ["0", "500", "1k", "1.5k"]);
        assert_eq!(labels(7_300_000), ["0", "2M", "4M", "6M", "8M"]);
        assert!(labels(i64::MAX / 4).len() <= 5);
    }

    #[test]
    fn bars_are_stacked_and_small_counts_stay_visible() {
        let drawn = chart(&[[999_999, 1], [0, 0], [0, 5]]);
        let parts: Vec<Vec<_>> =
            drawn.bars.iter().map(|bar| bar.parts.iter().map(|part| (part.series, part.height)).collect()).collect();
        assert_eq!(parts, [vec![(0, HEIGHT - 2), (1, 2)], vec![], vec![(1, 2)]]);
        assert_eq!(drawn.series.iter().map(|series| series.total).collect::<Vec<_>>(), [999_999, 6]);
        assert_eq!(drawn.bars[0].summary(&drawn.series), "n: Issued 999,999, Refused 1");
        assert_eq!((drawn.bars[2].left.as_str(), drawn.bars[2].width.as_str()), ("66.666%", "33.333%"));
        assert!(!drawn.is_empty() && chart(&[[0, 0]]).is_empty() && chart(&[]).is_empty());
    }

    #[test]
    fn buckets_are_named_by_their_time() {
        let now = Timestamp::parse_rfc3339("2026-11-09T18:05:00Z").unwrap();
        let last = |range: Range| {
            let buckets = range.buckets(now);
            let bucket = buckets.last().copied().unwrap();
            (label(&bucket, range), name(&bucket, range))
        };
        let expected = |label: &str, name: &str| (label.to_owned(), name.to_owned());
        assert_eq!(last(Range::Day), expected("18:00", "9 Nov 2026, 18:00 to 19:00"));
        assert_eq!(last(Range::Week), expected("9 Nov", "9 Nov 2026, 18:00 to 00:00"));
        assert_eq!(last(Range::Month), expected("9 Nov", "9 Nov 2026"));
        assert_eq!(last(Range::Quarter), expected("9 Nov", "9 Nov 2026"));
    }

    #[test]
    fn thousands_are_separated() {
        let counts = [0, 12, 999, 1_000, 12_345, 1_234_567, -1_000, -100];
        let texts = ["0", "12", "999", "1,000", "12,345", "1,234,567", "-1,000", "-100"];
        assert_eq!(counts.map(grouped), texts);
    }
}
