//! Registers the metrics of the table.

use std::marker::PhantomData;

use metrics::{Counter, Gauge, Histogram, Key, Label as KeyLabel, Level, Metadata, Recorder as _};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder};

use super::{
    labels::Label,
    table::{self, Kind, Metric},
};

static METADATA: Metadata<'static> = Metadata::new(module_path!(), Level::INFO, None);

/// Registers metrics, or hands out handles that do nothing. Not installed globally, so that several services in one
/// process count separately.
pub(super) struct Recorder(Option<PrometheusRecorder>);

impl Recorder {
    /// A recorder of nothing.
    pub(super) const fn off() -> Self {
        Self(None)
    }

    /// A recorder that knows the meaning and the bounds of every metric of the table.
    #[expect(clippy::expect_used, reason = "every histogram of the table has bounds")]
    pub(super) fn on() -> Self {
        let mut builder = PrometheusBuilder::new();
        for metric in table::all() {
            if let Kind::Histogram(bounds) = metric.kind {
                let name = Matcher::Full(metric.name.to_owned());
                builder = builder.set_buckets_for_metric(name, bounds).expect("bounds");
            }
        }
        let recorder = builder.build_recorder();
        for metric in table::all() {
            let (name, help) = (metric.name.into(), metric.help.into());
            match metric.kind {
                Kind::Counter => recorder.describe_counter(name, None, help),
                Kind::Gauge => recorder.describe_gauge(name, None, help),
                Kind::Histogram(_) => recorder.describe_histogram(name, None, help),
            }
        }
        Self(Some(recorder))
    }

    pub(super) fn handle(&self) -> Option<PrometheusHandle> {
        self.0.as_ref().map(PrometheusRecorder::handle)
    }

    /// Registers the counter of a metric with these label values.
    pub(super) fn counter(&self, metric: &Metric, values: &[&str]) -> Counter {
        let register = |recorder: &PrometheusRecorder| recorder.register_counter(&key(metric, values), &METADATA);
        self.0.as_ref().map_or_else(Counter::noop, register)
    }

    /// Registers the gauge of a metric with these label values.
    pub(super) fn gauge(&self, metric: &Metric, values: &[&str]) -> Gauge {
        let register = |recorder: &PrometheusRecorder| recorder.register_gauge(&key(metric, values), &METADATA);
        self.0.as_ref().map_or_else(Gauge::noop, register)
    }

    /// Registers the histogram of a metric with these label values.
    pub(super) fn histogram(&self, metric: &Metric, values: &[&str]) -> Histogram {
        let register = |recorder: &PrometheusRecorder| recorder.register_histogram(&key(metric, values), &METADATA);
        self.0.as_ref().map_or_else(Histogram::noop, register)
    }
}

fn key(metric: &Metric, values: &[&str]) -> Key {
    debug_assert_eq!(metric.labels.len(), values.len(), "{}", metric.name);
    let labels = metric.labels.iter().zip(values);
    let labels: Vec<_> = labels.map(|(label, value)| KeyLabel::new(label.name, (*value).to_owned())).collect();
    Key::from_parts(metric.name, labels)
}

/// A handle for each value of a label.
pub struct Family<L, H> {
    handles: Vec<H>,
    label: PhantomData<fn(L)>,
}

impl<L: Label, H> Family<L, H> {
    pub(super) fn of(register: impl FnMut(&'static str) -> H) -> Self {
        Self { handles: L::TEXTS.iter().copied().map(register).collect(), label: PhantomData }
    }
}

impl<L: Label> Family<L, Counter> {
    /// Adds one to the counter of this value.
    pub fn increment(&self, label: L) {
        if let Some(counter) = self.handles.get(label.index()) {
            counter.increment(1);
        }
    }
}

impl<L: Label> Family<L, Gauge> {
    /// Sets the gauge of this value.
    pub fn set(&self, label: L, value: f64) {
        if let Some(gauge) = self.handles.get(label.index()) {
            gauge.set(value);
        }
    }
}

/// Converts a number for a gauge.
#[must_use]
#[expect(clippy::cast_precision_loss, reason = "numbers far below 2^53")]
pub const fn number(value: u64) -> f64 {
    value as f64
}
