//! `GET /metrics`, and the state of the server that is read for it: the bundle, the decision log, alerts, and the health
//! of stores and providers. All other metrics are in [`Metrics`](crate::edge::telemetry::metrics::Metrics).

use std::fmt;
use std::sync::Arc;

use hyper::StatusCode;
use hyper::header::{ACCEPT, HeaderMap, HeaderValue, VARY};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;

use super::app::App;
use super::body::of_type;
use super::errors::Response;
use super::health::{self, Component, Part};
use crate::edge::outgoing::Delivery;
use crate::edge::telemetry::metrics::{Families, Family, Kind, TextFormat, gauge_of};
use crate::gate::DecisionLogStatus;
use crate::policy::{Report, Snapshot};

/// Answers, in the format that the client accepts.
pub(super) fn answer(app: &App, headers: &HeaderMap) -> Response {
    // Several headers of this name are one list (RFC 9110, section 5.3).
    let accept: Vec<&str> = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok()).collect();
    let format = TextFormat::accepted(Some(&accept.join(",")));
    let text = app.metrics.text(format, ServerState::of(app));
    let mut response = of_type(StatusCode::OK, format.content_type(), text);
    response.headers_mut().insert(VARY, HeaderValue::from_static("accept"));
    response
}

/// The state of the server at one scrape.
struct ServerState {
    report: Arc<Report>,
    snapshot: Option<Arc<Snapshot>>,
    decision_log: Option<DecisionLogStatus>,
    alerts: Option<Delivery>,
    checkpoints: Option<Delivery>,
    health: Vec<Component>,
}

impl ServerState {
    fn of(app: &App) -> Self {
        Self {
            report: app.engine.report(),
            snapshot: app.engine.snapshot(),
            decision_log: app.pdp().decision_log_status(),
            alerts: app.outbox.as_ref().map(|outbox| outbox.delivery()),
            checkpoints: app.checkpoints.as_ref().map(|outbox| outbox.delivery()),
            health: health::components(&app.engine, app.keys.as_ref().map(|service| &*service.keys)),
        }
    }

    fn write_reloads(&self, out: &mut Families<'_>) -> fmt::Result {
        let mut family = out.family(Kind::Counter, "tollgate_reload", "Loads of the bundle by outcome.")?;
        family.counter(&[("outcome", "success")], self.report.loads)?;
        family.counter(&[("outcome", "failure")], self.report.failures)?;
        let failed = u64::from(self.report.failure.is_some());
        out.gauge("tollgate_reload_failed", "Whether the newest files did not load.", gauge_of(failed))?;
        let millis = self.report.loaded_at.map_or(0, crate::model::Timestamp::as_millis);
        let name = "tollgate_reload_last_success_timestamp_seconds";
        #[expect(clippy::cast_precision_loss, reason = "milliseconds of this era are far below 2^53")]
        let seconds = millis as f64 / 1000.0;
        out.gauge(name, "When the bundle that decides was loaded.", seconds)
    }

    fn write_bundle(&self, out: &mut Families<'_>) -> fmt::Result {
        let Some(snapshot) = &self.snapshot else { return Ok(()) };
        let mut family = out.family(Kind::Gauge, "tollgate_bundle_info", "The bundle that decides.")?;
        family.gauge(&[("revision", snapshot.revision())], 1.0)?;
        let rules = u64::try_from(snapshot.counts().rules).unwrap_or(u64::MAX);
        out.gauge("tollgate_bundle_rules", "Rules of the bundle that decides.", gauge_of(rules))
    }

    fn write_health(&self, out: &mut Families<'_>) -> fmt::Result {
        let stores = ("tollgate_store_up", "store", "Whether a store answers.");
        let help = "Whether an identity provider answered when it was last asked.";
        let providers = ("tollgate_provider_up", "provider", help);
        for (part, (name, label, help)) in [(Part::Store, stores), (Part::Provider, providers)] {
            let mut family = out.family(Kind::Gauge, name, help)?;
            for one in self.health.iter().filter(|one| one.part == part) {
                family.gauge(&[(label, &one.name)], gauge_of(u64::from(!one.away)))?;
            }
        }
        Ok(())
    }
}

fn write_alerts(alerts: &Delivery, out: &mut Families<'_>) -> fmt::Result {
    let help = "Alerts by outcome; dropped ones were pushed out of a full queue.";
    let mut family = out.family(Kind::Counter, "tollgate_alerts", help)?;
    write_outcomes(alerts, &mut family)?;
    out.counter("tollgate_alert_retries", "How often an alert was sent again.", alerts.retried)?;
    let waiting = u64::try_from(alerts.waiting).unwrap_or(u64::MAX);
    out.gauge("tollgate_alerts_waiting", "Alerts that wait to be sent.", gauge_of(waiting))
}

fn write_outcomes(delivery: &Delivery, family: &mut Family<'_>) -> fmt::Result {
    let Delivery { delivered, failed, dropped, .. } = *delivery;
    for (outcome, count) in [("delivered", delivered), ("failed", failed), ("dropped", dropped)] {
        family.counter(&[("outcome", outcome)], count)?;
    }
    Ok(())
}

fn write_checkpoints(checkpoints: &Delivery, out: &mut Families<'_>) -> fmt::Result {
    let help = "Checkpoints of the decision log by outcome; dropped ones were pushed out of a full queue.";
    write_outcomes(checkpoints, &mut out.family(Kind::Counter, "tollgate_decision_log_checkpoints", help)?)?;
    let help = "How often a checkpoint of the decision log was sent again.";
    out.counter("tollgate_decision_log_checkpoint_retries", help, checkpoints.retried)
}

fn write_decision_log(status: &DecisionLogStatus, out: &mut Families<'_>) -> fmt::Result {
    let help = "Records of decisions by outcome; lost ones are counted in the log itself.";
    let mut family = out.family(Kind::Counter, "tollgate_decision_log_records", help)?;
    for (outcome, count) in [("written", status.written), ("lost", status.lost), ("summed_up", status.summed_up)] {
        family.counter(&[("outcome", outcome)], count)?;
    }
    out.gauge("tollgate_decision_log_queue_bytes", "Bytes of the queued records.", gauge_of(status.queued_bytes))?;
    let stopped = u64::from(status.stopped);
    out.gauge("tollgate_decision_log_stopped", "Whether records cannot be written now.", gauge_of(stopped))
}

impl Collector for ServerState {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut out = Families::new(encoder);
        if let Some(alerts) = &self.alerts {
            write_alerts(alerts, &mut out)?;
        }
        self.write_reloads(&mut out)?;
        if let Some(status) = &self.decision_log {
            write_decision_log(status, &mut out)?;
        }
        if let Some(checkpoints) = &self.checkpoints {
            write_checkpoints(checkpoints, &mut out)?;
        }
        self.write_bundle(&mut out)?;
        self.write_health(&mut out)
    }
}

impl fmt::Debug for ServerState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerState").finish_non_exhaustive()
    }
}
