//! Opens the decision log that the settings ask for.

use std::error::Error;
use std::sync::Arc;

use super::machine;
use super::webhooks::{self, Sending};
use crate::config::Settings;
use crate::edge::clock::SystemClock;
use crate::edge::decision_log::Recorder;
use crate::edge::telemetry::metrics::Metrics;
use crate::gate::Checkpoint;

/// The decision log of a server.
#[derive(Default)]
pub(super) struct Log {
    /// `None` if decisions are not recorded.
    pub(super) recorder: Option<Arc<Recorder>>,
    /// The webhook of its checkpoints.
    pub(super) checkpoints: Option<Sending<Checkpoint>>,
}

/// Opens the decision log. A log that is on by default and cannot be opened does not prevent the start.
///
/// # Errors
/// Where a log that is configured cannot be opened, or its webhook cannot.
pub(super) fn open(settings: &Settings, metrics: &Metrics) -> Result<Log, Box<dyn Error>> {
    let node = if settings.webhook.node.is_empty() { machine() } else { settings.webhook.node.clone() };
    let Some(options) = settings.decision_log.options(&settings.data, node) else { return Ok(Log::default()) };
    let checkpoints = webhooks::checkpoints(settings.decision_log.checkpoints.webhook.as_ref(), metrics)?;
    let outbox = checkpoints.as_ref().map(|sending| Arc::clone(&sending.outbox));
    match Recorder::open_with(options, Arc::new(SystemClock), webhooks::queue_checkpoints(outbox)) {
        Ok(recorder) => Ok(Log { recorder: Some(Arc::new(recorder)), checkpoints }),
        Err(error) if !settings.decision_log.is_wanted => {
            tracing::warn!(
                target: "tollgate::decision_log",
                "decisions are not recorded: {error}; set `decision_log.level` to off, or `decision_log.file.directory`",
            );
            Ok(Log::default())
        }
        Err(error) => Err(error.into()),
    }
}
