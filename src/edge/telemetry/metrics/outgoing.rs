//! Requests to other servers: those of identity providers, and alerts.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::metrics::gauge::Gauge;

use super::families::{Families, Kind, gauge_of};
use super::histogram::{LazyHistogram, OUTGOING};
use super::queues::InFlight;
use crate::gate::{Ask, Fetch, FetchError, Later, Reply};

/// The ends of a request: the class of its status, or `error` without a response.
const OUTCOMES: [&str; 5] = ["2xx", "3xx", "4xx", "5xx", "error"];

/// The metrics of outgoing requests.
#[derive(Debug, Default)]
pub(super) struct Outgoing {
    all: Mutex<Vec<Arc<OutgoingMetrics>>>,
}

/// The requests of one purpose.
#[derive(Debug)]
pub struct OutgoingMetrics {
    purpose: &'static str,
    provider: Box<str>,
    durations: [LazyHistogram; OUTCOMES.len()],
    in_flight: Gauge,
}

impl OutgoingMetrics {
    /// Begins a request.
    #[must_use]
    pub fn begin(self: &Arc<Self>) -> OutgoingRequest {
        let in_flight = InFlight::begin(&self.in_flight);
        OutgoingRequest { metrics: Arc::clone(self), began: Instant::now(), _in_flight: in_flight }
    }

    fn ended(&self, status: Option<u16>, took: Duration) {
        let at = match status {
            Some(200..300) => 0,
            Some(300..400) => 1,
            Some(400..500) => 2,
            Some(_) => 3,
            None => 4,
        };
        if let Some(histogram) = self.durations.get(at) {
            histogram.observe(&OUTGOING, took);
        }
    }
}

/// A request that was begun.
#[derive(Debug)]
pub struct OutgoingRequest {
    metrics: Arc<OutgoingMetrics>,
    began: Instant,
    _in_flight: InFlight,
}

impl OutgoingRequest {
    /// Records its end, with the status of the response; `None` without a response.
    pub fn end(self, status: Option<u16>) {
        self.metrics.ended(status, self.began.elapsed());
    }
}

impl Outgoing {
    /// The series of a purpose and provider; the same ones, where they were asked for before.
    pub(super) fn series(&self, purpose: &'static str, provider: &str) -> Arc<OutgoingMetrics> {
        let mut all = self.all.lock();
        if let Some(known) = all.iter().find(|known| known.purpose == purpose && &*known.provider == provider) {
            return Arc::clone(known);
        }
        let (durations, in_flight) = (Default::default(), Gauge::default());
        let made = Arc::new(OutgoingMetrics { purpose, provider: provider.into(), durations, in_flight });
        all.push(Arc::clone(&made));
        made
    }

    pub(super) fn fetch(&self, provider: &str, fetch: Arc<dyn Fetch>) -> Arc<dyn Fetch> {
        Arc::new(MeasuredFetch { fetch, metrics: self.series("identity", provider) })
    }
}

impl Collector for Outgoing {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut out = Families::new(encoder);
        let all = self.all.lock();
        let help = "Time of requests to other servers, by purpose, identity provider and outcome.";
        let mut family = out.family(Kind::Histogram, "tollgate_outgoing_request_duration_seconds", help)?;
        for one in &*all {
            for (outcome, histogram) in OUTCOMES.iter().zip(&one.durations) {
                // The series of success and of failure exist from the start, so that `rate` sees their first increase.
                let exists = matches!(*outcome, "2xx" | "error").then(|| histogram.get_or_make(&OUTGOING));
                if let Some(histogram) = exists.or_else(|| histogram.get()) {
                    let labels = [("purpose", one.purpose), ("provider", &*one.provider), ("outcome", outcome)];
                    family.histogram(&labels, histogram)?;
                }
            }
        }
        let help = "Requests to other servers that have no response yet.";
        let mut family = out.family(Kind::Gauge, "tollgate_outgoing_requests_in_flight", help)?;
        for one in &*all {
            let in_flight = u64::try_from(one.in_flight.get()).unwrap_or_default();
            family.gauge(&[("purpose", one.purpose), ("provider", &*one.provider)], gauge_of(in_flight))?;
        }
        Ok(())
    }
}

/// Measures the requests of a [`Fetch`].
struct MeasuredFetch {
    fetch: Arc<dyn Fetch>,
    metrics: Arc<OutgoingMetrics>,
}

impl Fetch for MeasuredFetch {
    fn fetch(&self, ask: Ask) -> Later<Result<Reply, FetchError>> {
        let request = self.metrics.begin();
        let pending = self.fetch.fetch(ask);
        Later::pending(async move {
            let reply = pending.await;
            request.end(reply.as_ref().ok().map(|reply| reply.status));
            reply
        })
    }
}
