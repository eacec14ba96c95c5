//! Observation of the decision service: what metrics count, and what the log of refused credentials records.

use std::net::IpAddr;
use std::time::Duration;

use super::Notice;
use super::decision_log::DecisionRecord;
use crate::model::Refusal;

/// Receives each event of the decision service once. The methods run on the deciding thread, so they must not do I/O.
/// Every method does nothing by default.
pub trait Observer: Send + Sync {
    /// A decision was made; `elapsed` is the time since its call arrived, authentication included.
    fn decided(&self, _record: &DecisionRecord<'_>, _elapsed: Duration) {}

    /// A credential was refused. `source` is the address that it came from, if it is known.
    fn credential_refused(&self, _refusal: &Refusal, _source: Option<IpAddr>) {}

    /// A limit reached one of its `warn_at` thresholds.
    fn limit_reached(&self, _notice: &Notice) {}

    /// A decision ended in a panic, and its caller got an error.
    fn panicked(&self) {}
}
