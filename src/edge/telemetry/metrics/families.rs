//! Writing families of metrics for one scrape, on the encoder of prometheus-client.

use std::fmt;

use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;

use super::histogram::Histogram;

/// The kind of a family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A number that only grows; the encoder adds `_total` to the name.
    Counter,
    /// A number that goes up and down.
    Gauge,
    /// A distribution of durations.
    Histogram,
}

/// The families of a scrape.
pub(crate) struct Families<'a>(DescriptorEncoder<'a>);

impl<'a> Families<'a> {
    pub(crate) fn new(encoder: DescriptorEncoder<'a>) -> Self {
        Self(encoder)
    }

    /// Begins a family.
    pub(crate) fn family<'s>(&'s mut self, kind: Kind, name: &'s str, help: &str) -> Result<Family<'s>, fmt::Error> {
        let kind = match kind {
            Kind::Counter => MetricType::Counter,
            Kind::Gauge => MetricType::Gauge,
            Kind::Histogram => MetricType::Histogram,
        };
        self.0.encode_descriptor(name, help, None, kind).map(Family)
    }

    /// A gauge without labels.
    pub(crate) fn gauge(&mut self, name: &str, help: &str, value: f64) -> fmt::Result {
        self.family(Kind::Gauge, name, help)?.gauge(&[], value)
    }

    /// A counter without labels.
    pub(crate) fn counter(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        self.family(Kind::Counter, name, help)?.counter(&[], value)
    }
}

/// Names and values of labels.
pub(crate) type Labels<'a> = [(&'static str, &'a str)];

/// A family to which series are written.
pub(crate) struct Family<'a>(MetricEncoder<'a>);

impl Family<'_> {
    pub(crate) fn counter(&mut self, labels: &Labels<'_>, value: u64) -> fmt::Result {
        self.0.encode_family(&labels)?.encode_counter::<NoLabelSet, u64, f64>(&value, None)
    }

    pub(crate) fn gauge(&mut self, labels: &Labels<'_>, value: f64) -> fmt::Result {
        // Whole numbers are written without a fraction, as they always were.
        #[expect(clippy::cast_possible_truncation, reason = "only numbers that are whole and small are converted")]
        if value.fract() == 0.0 && value.abs() < 1e15 {
            return self.0.encode_family(&labels)?.encode_gauge(&(value as i64));
        }
        self.0.encode_family(&labels)?.encode_gauge(&value)
    }

    pub(crate) fn histogram(&mut self, labels: &Labels<'_>, histogram: &Histogram) -> fmt::Result {
        let read = histogram.read();
        self.0.encode_family(&labels)?.encode_histogram::<NoLabelSet>(read.sum, read.count, &read.buckets, None)
    }
}

/// A count as the value of a gauge.
#[expect(clippy::cast_precision_loss, reason = "numbers beyond 2^53 are no lengths of queues")]
pub(crate) fn gauge_of(count: u64) -> f64 {
    count as f64
}
