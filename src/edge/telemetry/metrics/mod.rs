//! Metrics of the server, in the formats that Prometheus reads.
//!
//! One [`Metrics`] value is created before the engine and shared by everything that reports: the HTTP server, the stores,
//! the outgoing requests. A report on the path of a decision is an atomic addition to a series that is found by an index,
//! not by its labels. State that is kept elsewhere, such as the length of a queue, is read when the metrics are
//! scraped.
//!
//! The number of series is bounded: labels are words of the configuration and of closed sets. No label holds a principal,
//! a model, an address, or a path as it was sent.

mod decisions;
mod families;
mod histogram;
mod http;
mod outgoing;
mod queues;
mod stores;

use std::fmt;
use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{prometheus_text, text};
use prometheus_client::registry::Registry;

use self::decisions::Decisions;
use self::http::Http;
use self::outgoing::Outgoing;
use self::queues::Queues;
use self::stores::Stores;
use crate::gate::{Fetch, Meters, Via};
use crate::model::{DecisionCode, RefusalReason, RuleReference};

pub(crate) use self::families::{Families, Family, Kind, gauge_of};
pub(crate) use self::http::RouteMetrics;
pub use self::outgoing::OutgoingMetrics;
pub use self::queues::{Bound, Unit};

/// The metrics of a server.
pub struct Metrics {
    registry: Registry,
    decisions: Arc<Decisions>,
    http: Arc<Http>,
    stores: Arc<Stores>,
    outgoing: Arc<Outgoing>,
    queues: Arc<Queues>,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::default();
        let (decisions, http) = (Arc::<Decisions>::default(), Arc::<Http>::default());
        let (stores, outgoing, queues) = (Arc::<Stores>::default(), Arc::<Outgoing>::default(), Arc::default());
        registry.register_collector(Box::new(Arc::clone(&decisions)));
        registry.register_collector(Box::new(Arc::clone(&http)));
        registry.register_collector(Box::new(Arc::clone(&stores)));
        registry.register_collector(Box::new(Arc::clone(&outgoing)));
        registry.register_collector(Box::new(Arc::<Queues>::clone(&queues)));
        Self { registry, decisions, http, stores, outgoing, queues }
    }
}

/// A decision that was made.
#[derive(Debug, Clone, Copy)]
pub(crate) struct DecisionMade<'a> {
    /// The interface that it was asked through.
    pub(crate) via: Via,
    /// Its code.
    pub(crate) code: DecisionCode,
    /// The rules that determined it.
    pub(crate) rules: &'a [RuleReference],
    /// The time from the call to the decision, with authentication and the waits for stores and providers.
    pub(crate) took: std::time::Duration,
}

impl Metrics {
    /// Counts a decision.
    pub(crate) fn decided(&self, made: &DecisionMade<'_>) {
        self.decisions.decided(made);
    }

    /// Counts a refused credential.
    pub(crate) fn refused(&self, reason: RefusalReason) {
        self.decisions.refused(reason);
    }

    /// Counts a crossed `warn_at` of a limit.
    pub(crate) fn warned(&self, limit: &smol_str::SmolStr, percent: u8) {
        self.decisions.warned(limit, percent);
    }

    /// Counts a panic while a request was answered.
    pub(crate) fn panicked(&self) {
        self.decisions.panicked();
    }

    /// Counts a response.
    pub(crate) fn responded(&self, status: ::http::StatusCode) {
        self.http.responded(status);
    }

    /// Counts a TLS handshake that failed.
    pub(crate) fn handshake_failed(&self) {
        self.http.handshake_failed();
    }

    /// The series of a route, to be resolved once. `route` is the template of its path.
    pub(crate) fn route(&self, method: &'static str, route: &'static str) -> Arc<RouteMetrics> {
        self.http.route(method, route)
    }

    /// `meters`, with their operations measured. `store` is the label of the store.
    #[must_use]
    pub fn meters(&self, store: &'static str, meters: Arc<dyn Meters>) -> Arc<dyn Meters> {
        self.stores.meters(store, meters)
    }

    /// `fetch`, with its requests measured as those of the identity provider called `provider`.
    #[must_use]
    pub fn fetch(&self, provider: &str, fetch: Arc<dyn Fetch>) -> Arc<dyn Fetch> {
        self.outgoing.fetch(provider, fetch)
    }

    /// The series of the requests that deliver alerts.
    #[must_use]
    pub fn webhook(&self) -> Arc<OutgoingMetrics> {
        self.outgoing.series("alerts", "")
    }

    /// The series of the requests that deliver checkpoints of the decision log.
    #[must_use]
    pub fn checkpoint_webhook(&self) -> Arc<OutgoingMetrics> {
        self.outgoing.series("checkpoints", "")
    }

    /// Reads at every scrape how much of a bounded queue or pool is in use.
    pub fn bound(&self, bound: Bound) {
        self.queues.add(bound);
    }

    /// All metrics as text, followed by those of `state`, which are read for this scrape alone.
    pub(crate) fn text(&self, format: TextFormat, state: impl Collector) -> String {
        let mut also = Registry::default();
        also.register_collector(Box::new(state));
        let mut out = String::with_capacity(32 * 1024);
        // Writing to a String cannot fail.
        let _written = match format {
            TextFormat::Prometheus => prometheus_text::encode(&mut out, &self.registry)
                .and_then(|()| prometheus_text::encode(&mut out, &also)),
            TextFormat::OpenMetrics => {
                text::encode_registry(&mut out, &self.registry).and_then(|()| text::encode(&mut out, &also))
            }
        };
        out
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

/// A text format of metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TextFormat {
    /// [Prometheus' text format](https://prometheus.io/docs/instrumenting/exposition_formats/), version 0.0.4.
    Prometheus,
    /// [OpenMetrics](https://github.com/prometheus/OpenMetrics/blob/v1.0.0/specification/OpenMetrics.md), version 1.0.0.
    OpenMetrics,
}

impl TextFormat {
    /// The format that a client prefers, by its `Accept` header: Prometheus' own unless OpenMetrics has at least its
    /// weight.
    pub(crate) fn accepted(accept: Option<&str>) -> Self {
        let weight = |wanted: &str| {
            let ranges = accept.unwrap_or_default().split(',');
            let mut found = ranges.filter_map(|range| {
                let mut parts = range.split(';').map(str::trim);
                let is_wanted = parts.next()?.eq_ignore_ascii_case(wanted);
                let weight = parts.find_map(|part| part.strip_prefix("q=")).map_or(Some(1.0), |q| q.parse().ok());
                weight.filter(|weight: &f32| is_wanted && *weight > 0.0)
            });
            found.next()
        };
        match (weight("application/openmetrics-text"), weight("text/plain")) {
            (Some(_), None) => Self::OpenMetrics,
            (Some(open), Some(plain)) if open >= plain => Self::OpenMetrics,
            _ => Self::Prometheus,
        }
    }

    /// The `Content-Type` of the format.
    pub(crate) const fn content_type(self) -> &'static str {
        match self {
            Self::Prometheus => prometheus_text::CONTENT_TYPE,
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn openmetrics_is_written_only_to_clients_that_prefer_it() {
        let prometheus = "application/openmetrics-text;version=1.0.0;q=0.5,application/openmetrics-text;version=0.0.1;\
                          q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2";
        for (accept, expected) in [
            (None, TextFormat::Prometheus),
            (Some("*/*"), TextFormat::Prometheus),
            (Some("text/plain"), TextFormat::Prometheus),
            (Some("text/html, nonsense;;q=x"), TextFormat::Prometheus),
            (Some(prometheus), TextFormat::OpenMetrics),
            (Some("Application/OpenMetrics-Text"), TextFormat::OpenMetrics),
            (Some("application/openmetrics-text; q=0"), TextFormat::Prometheus),
            (Some("application/openmetrics-text;q=0.1, text/plain"), TextFormat::Prometheus),
        ] {
            assert_eq!(TextFormat::accepted(accept), expected, "{accept:?}");
        }
    }
}
