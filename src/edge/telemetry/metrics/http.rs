//! Responses and durations of HTTP requests.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use ::http::StatusCode;
use parking_lot::Mutex;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::metrics::counter::Counter;

use super::families::{Families, Kind};
use super::histogram::{LazyHistogram, REQUEST};

/// The statuses with a series from the start, and with durations of their own. Any other status gets a series when it is
/// first answered, and its durations have the label `other`.
const USUAL_STATUSES: [u16; 15] = [200, 201, 202, 204, 400, 401, 402, 403, 404, 405, 408, 409, 413, 429, 503];
/// The least status that there is, and how many there may be (RFC 9110, section 15).
const FIRST_STATUS: u16 = 100;
const STATUSES: usize = 900;

/// The metrics of HTTP.
#[derive(Debug)]
pub(super) struct Http {
    /// Responses, each under its own status.
    responses: Box<[AtomicU64]>,
    handshake_failures: Counter,
    routes: Mutex<Vec<Arc<RouteMetrics>>>,
}

impl Default for Http {
    fn default() -> Self {
        let responses = (0..STATUSES).map(|_| AtomicU64::new(0)).collect();
        Self { responses, handshake_failures: Counter::default(), routes: Mutex::default() }
    }
}

impl Http {
    pub(super) fn responded(&self, status: StatusCode) {
        if let Some(count) = self.responses.get(usize::from(status.as_u16().saturating_sub(FIRST_STATUS))) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(super) fn handshake_failed(&self) {
        self.handshake_failures.inc();
    }

    pub(super) fn route(&self, method: &'static str, route: &'static str) -> Arc<RouteMetrics> {
        let made = Arc::new(RouteMetrics { method, route, durations: Default::default() });
        self.routes.lock().push(Arc::clone(&made));
        made
    }

    fn write(&self, out: &mut Families<'_>) -> fmt::Result {
        let mut family = out.family(Kind::Counter, "tollgate_http_responses", "HTTP responses by status.")?;
        let counts = (FIRST_STATUS..).zip(self.responses.iter().map(|count| count.load(Ordering::Relaxed)));
        for (status, count) in counts.filter(|(status, count)| *count > 0 || USUAL_STATUSES.contains(status)) {
            family.counter(&[("status", &status.to_string())], count)?;
        }
        let help = "Connections that ended in their TLS handshake.";
        out.counter("tollgate_tls_handshake_failures", help, self.handshake_failures.get())?;
        let help = "Time from the head of an HTTP request to its response, with the time to read its body.";
        let mut family = out.family(Kind::Histogram, "tollgate_http_request_duration_seconds", help)?;
        for route in &*self.routes.lock() {
            let statuses = USUAL_STATUSES.iter().map(ToString::to_string).chain(["other".to_owned()]);
            for (status, histogram) in statuses.zip(&route.durations) {
                if let Some(histogram) = histogram.get() {
                    let labels = [("method", route.method), ("route", route.route), ("status", &*status)];
                    family.histogram(&labels, histogram)?;
                }
            }
        }
        Ok(())
    }
}

impl Collector for Http {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        self.write(&mut Families::new(encoder))
    }
}

/// The durations of one route.
#[derive(Debug)]
pub(crate) struct RouteMetrics {
    method: &'static str,
    route: &'static str,
    durations: [LazyHistogram; USUAL_STATUSES.len() + 1],
}

impl RouteMetrics {
    /// Whether these are the durations of this route.
    pub(crate) fn is_of(&self, method: &str, route: &str) -> bool {
        self.method == method && self.route == route
    }

    /// Records that a request was answered.
    pub(crate) fn answered(&self, status: StatusCode, took: Duration) {
        let status = status.as_u16();
        let at = USUAL_STATUSES.iter().position(|known| *known == status).unwrap_or(USUAL_STATUSES.len());
        if let Some(histogram) = self.durations.get(at) {
            histogram.observe(&REQUEST, took);
        }
    }
}
