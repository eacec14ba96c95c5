//! Opens the decision log that the settings ask for.

use std::sync::Arc;

use super::machine;
use crate::config::Settings;
use crate::edge::clock::SystemClock;
use crate::edge::decision_log::{DecisionLogError, Recorder};

/// Opens the decision log; `None` if decisions are not recorded. A log that is on by default and cannot be opened does
/// not prevent the start.
///
/// # Errors
/// Where a log that is configured cannot be opened.
pub(super) fn open(settings: &Settings) -> Result<Option<Arc<Recorder>>, DecisionLogError> {
    let node = if settings.webhook.node.is_empty() { machine() } else { settings.webhook.node.clone() };
    let Some(options) = settings.decision_log.options(&settings.data, node) else { return Ok(None) };
    match Recorder::open(options, Arc::new(SystemClock)) {
        Ok(recorder) => Ok(Some(Arc::new(recorder))),
        Err(error) if !settings.decision_log.is_wanted => {
            tracing::warn!(
                target: "tollgate::decision_log",
                "decisions are not recorded: {error}; set `decision_log.level` to off, or `decision_log.file.directory`",
            );
            Ok(None)
        }
        Err(error) => Err(error),
    }
}
