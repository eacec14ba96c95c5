//! The webhooks of the server: alerts of limits, and checkpoints of the decision log.

use std::error::Error;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use super::{machine, metrics};
use crate::config::WebhookSettings;
use crate::edge::clock::SystemClock;
use crate::edge::decision_log::OnCheckpoint;
use crate::edge::outgoing::{Client, ClientOptions, Outbox, Webhook, WebhookEvent, WebhookOptions};
use crate::edge::telemetry::metrics::{Metrics, OutgoingMetrics};
use crate::gate::{Checkpoint, Notice};

/// The maximum number of bytes of a response that are read.
const MAX_REPLY_BYTES: usize = 64 * 1024;
/// How long a server that stops waits for the delivery of queued events.
const LAST_EVENTS_WAIT: Duration = Duration::from_secs(2);

/// A task that runs until the server stops.
pub(super) type Background = Pin<Box<dyn Future<Output = ()> + Send>>;

/// The queue of a webhook, and the task that sends its events.
pub(super) struct Sending<E> {
    pub(super) outbox: Arc<Outbox<E>>,
    task: Background,
}

impl<E> Sending<E> {
    pub(super) fn into_parts(self) -> (Arc<Outbox<E>>, Background) {
        (self.outbox, self.task)
    }
}

/// The webhook of alerts; `None` if none is configured.
pub(super) fn alerts(settings: &WebhookSettings, metrics: &Metrics) -> Result<Option<Sending<Notice>>, Box<dyn Error>> {
    let sending = open(settings, metrics.webhook())?;
    if let Some(sending) = &sending {
        metrics::outbox(metrics, "alerts", &sending.outbox);
    }
    Ok(sending)
}

/// The webhook of checkpoints; `None` if none is configured.
pub(super) fn checkpoints(
    settings: Option<&WebhookSettings>,
    metrics: &Metrics,
) -> Result<Option<Sending<Checkpoint>>, Box<dyn Error>> {
    let Some(settings) = settings else { return Ok(None) };
    let sending = open(settings, metrics.checkpoint_webhook())?;
    if let Some(sending) = &sending {
        metrics::outbox(metrics, "checkpoints", &sending.outbox);
    }
    Ok(sending)
}

fn open<E: WebhookEvent>(
    settings: &WebhookSettings,
    metrics: Arc<OutgoingMetrics>,
) -> Result<Option<Sending<E>>, Box<dyn Error>> {
    let WebhookSettings { url: Some(url), secret: Some(secret), .. } = settings.clone() else { return Ok(None) };
    let WebhookSettings { node, attempts, pause, timeout, queue, .. } = settings.clone();
    let node = if node.is_empty() { machine() } else { node };
    let client = Client::new(url, ClientOptions::new(timeout, MAX_REPLY_BYTES).through(&crate::config::proxy()?))?;
    let outbox = Arc::new(Outbox::new(queue));
    let options = WebhookOptions { secret, node, attempts, pause };
    let webhook = Webhook::new(Arc::clone(&outbox), client, options, Arc::new(SystemClock));
    let webhook = webhook.on_attempt(Box::new(move || {
        let attempt = metrics.begin();
        Box::new(move |status| attempt.end(status))
    }));
    Ok(Some(Sending { outbox, task: Box::pin(webhook.run()) }))
}

/// Queues checkpoints. The first one that is dropped is logged, and again the first one after any was delivered.
pub(super) fn queue_checkpoints(outbox: Option<Arc<Outbox<Checkpoint>>>) -> OnCheckpoint {
    let Some(outbox) = outbox else { return Box::new(|_| {}) };
    let mut delivered_at_warning = None;
    Box::new(move |checkpoint| {
        let Some(dropped) = outbox.put(checkpoint) else { return };
        let delivered = outbox.delivery().delivered;
        if delivered_at_warning.replace(delivered) != Some(delivered) {
            tracing::warn!(
                target: "tollgate::decision_log",
                seq = dropped.seq,
                "checkpoint {} of the decision log was dropped: the queue of decision_log.checkpoints.webhook is full, \
                 and newer checkpoints replace older ones until the receiver accepts some",
                dropped.seq,
            );
        }
    })
}

/// Waits for the delivery of queued alerts when the server stops.
pub(super) async fn finish_alerts(outbox: &Outbox<Notice>) {
    if tokio::time::timeout(LAST_EVENTS_WAIT, outbox.emptied()).await.is_err() {
        let alerts = outbox.len();
        tracing::warn!(target: "tollgate::alerts", alerts, "{alerts} alerts were not sent before the server stopped");
    }
}

/// Waits for the delivery of queued checkpoints when the server stops.
pub(super) async fn finish_checkpoints(outbox: &Outbox<Checkpoint>) {
    if tokio::time::timeout(LAST_EVENTS_WAIT, outbox.emptied()).await.is_err() {
        let checkpoints = outbox.len();
        tracing::warn!(
            target: "tollgate::decision_log",
            checkpoints,
            "{checkpoints} checkpoints of the decision log were not sent before the server stopped"
        );
    }
}
