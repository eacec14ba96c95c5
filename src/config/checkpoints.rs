//! `decision_log.checkpoints:`, where copies of the checkpoints of the decision log are stored, as written and then as
//! meant.
//!
//! ```yaml
//! decision_log:
//!   checkpoints:
//!     file: /mnt/elsewhere/checkpoints.jsonl
//!     webhook: { url: https://audit.example.com/checkpoints, secret_file: /etc/tollgate/checkpoints.secret }
//! ```

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::Deserialize;

use super::WebhookSettings;
use super::faults::NodeError;
use super::scalars::{ConfigPath, MINUTE, Millis, Text, Whole};
use crate::edge::outgoing::Address;
use crate::policy::syntax::Located;

/// The setting.
const SETTING: &str = "decision_log.checkpoints";
/// Default of `queue`: the checkpoints of at least this many seconds wait while the receiver is unavailable.
const QUEUE: usize = 100;

/// Where copies of the checkpoints of the decision log are stored.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CheckpointSettings {
    /// A file to which every checkpoint is appended.
    pub file: Option<PathBuf>,
    /// A webhook to which every checkpoint is sent.
    pub webhook: Option<WebhookSettings>,
}

impl CheckpointSettings {
    /// The settings of the section.
    ///
    /// # Errors
    /// The first setting that is wrong, with its place.
    pub(super) fn checked(section: Located<Raw>) -> Result<Self, NodeError> {
        let Located { value: raw, place } = section;
        if raw.file.is_none() && raw.webhook.is_none() {
            return Err(NodeError::of_setting(
                SETTING,
                place,
                "checkpoints go to a `file`, to a `webhook`, or to both",
            ));
        }
        Ok(Self { file: raw.file.map(|path| path.0), webhook: raw.webhook.map(RawWebhook::checked).transpose()? })
    }
}

/// The section as it is written in the file.
#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(inline)]
#[serde(deny_unknown_fields)]
pub(super) struct Raw {
    /// A file on another machine's mount to which every checkpoint is appended.
    file: Option<ConfigPath>,
    /// A URL to which every checkpoint is posted.
    webhook: Option<RawWebhook>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(inline)]
#[serde(deny_unknown_fields)]
struct RawWebhook {
    /// The URL: https, or http on this machine.
    url: Text<Address>,
    /// The file of the secret that requests are signed with.
    secret_file: Located<ConfigPath>,
    /// Maximum number of attempts to send a checkpoint.
    #[schemars(extend("default" = 8))]
    attempts: Option<Whole<1, 100>>,
    /// The pause after the first attempt; each one after that is twice as long, up to five minutes.
    #[schemars(extend("default" = 1000))]
    pause_ms: Option<Millis<1, { 5 * MINUTE }>>,
    /// Timeout of an attempt.
    #[schemars(extend("default" = 10_000))]
    timeout_ms: Option<Millis<10, { 5 * MINUTE }>>,
    /// Maximum number of queued checkpoints. In a full queue, the newest one replaces the oldest one.
    #[schemars(extend("default" = QUEUE))]
    queue: Option<Whole<1, 10_000>>,
}

impl RawWebhook {
    fn checked(self) -> Result<WebhookSettings, NodeError> {
        let usual = WebhookSettings::default();
        let Located { value: ConfigPath(path), place } = self.secret_file;
        let secret = super::webhook_secret(&path)
            .map_err(|message| NodeError::of_setting("decision_log.checkpoints.webhook.secret_file", place, message))?;
        Ok(WebhookSettings {
            url: Some(self.url.0),
            secret_file: Some(path),
            secret: Some(secret),
            attempts: self.attempts.map_or(usual.attempts, Whole::as_usize),
            pause: self.pause_ms.map_or(usual.pause, |pause| pause.0),
            timeout: self.timeout_ms.map_or(usual.timeout, |timeout| timeout.0),
            queue: self.queue.map_or(QUEUE, Whole::as_usize),
            ..usual
        })
    }
}
