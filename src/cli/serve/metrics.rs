//! Hands the metrics to the parts of the server that report to them, and shows how full their queues are.

use std::sync::Arc;

use crate::edge::decision_log::Recorder;
use crate::edge::identity::BasicProvider;
use crate::edge::outgoing::{Outbox, WebhookEvent};
use crate::edge::store::Fallback;
use crate::edge::telemetry::metrics::{Bound, Metrics, Unit};

/// Shows the queue of a webhook.
pub(super) fn outbox<E: WebhookEvent>(metrics: &Metrics, name: &'static str, outbox: &Arc<Outbox<E>>) {
    let (queue, limit) = (Arc::clone(outbox), outbox.capacity());
    let used = Box::new(move || queue.len());
    metrics.bound(Bound { name, unit: Unit::Entries, limit, used });
}

/// Shows the queue of the decision log.
pub(super) fn recorder(metrics: &Metrics, recorder: &Arc<Recorder>) {
    let (queue, limit) = (Arc::clone(recorder), recorder.capacity_bytes());
    let used = Box::new(move || queue.queued_bytes());
    metrics.bound(Bound { name: "decision_log", unit: Unit::Bytes, limit, used });
}

/// Shows the passwords that are checked or hashed, by all providers together.
pub(super) fn passwords(metrics: &Metrics, providers: Vec<Arc<BasicProvider>>) {
    if providers.is_empty() {
        return;
    }
    let limit = providers.iter().map(|provider| provider.capacity()).sum();
    let used = Box::new(move || providers.iter().map(|provider| provider.in_work()).sum());
    metrics.bound(Bound { name: "password_checks", unit: Unit::Entries, limit, used });
}

/// Shows the reservations that this node made while the store failed, and that the store is to be charged.
pub(super) fn fallback(metrics: &Metrics, fallback: &Arc<Fallback>) {
    let (queue, limit) = (Arc::clone(fallback), Fallback::CAPACITY);
    let used = Box::new(move || queue.uncharged());
    metrics.bound(Bound { name: "store_fallback", unit: Unit::Entries, limit, used });
}
