//! Checkpoints of the decision log as events of a webhook.

use super::webhook::WebhookEvent;
use crate::gate::Checkpoint;

impl WebhookEvent for Checkpoint {
    /// The line as it is written in the log, with its newline, so that a receiver can append every body to one file, and
    /// `tollgate log verify --checkpoint` reads this file. The line has the name of the server.
    fn body(&self, _node: &str) -> Vec<u8> {
        self.line.to_vec()
    }

    fn log_failure(&self, reason: &str) {
        let line = String::from_utf8_lossy(&self.line);
        tracing::warn!(
            target: "tollgate::decision_log",
            seq = self.seq,
            "checkpoint {} of the decision log was not delivered: {reason}; it is {}",
            self.seq,
            line.trim_end(),
        );
    }
}
