//! The few traits through which the way of a request reaches the outside.

use crate::model::Timestamp;

/// Where the instant of a decision comes from; read once a request.
pub trait Clock: Send + Sync {
    /// The instant it is now.
    fn now(&self) -> Timestamp;
}
