//! Why a call of the service has no answer. A forbid is an answer, and not an error.

use crate::gate::{SettleError, StandingsError, StoreError};
use crate::model::{Refusal, RequestError};

/// Why a call has no answer. Every protocol has one table from these to its own errors.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum PdpError {
    /// No bundle has been loaded yet.
    #[error("no bundle is active yet")]
    NoBundle,
    /// The schema does not accept the request, or one of its members is invalid.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// The credential was refused, and the call has no decision to put that into.
    #[error(transparent)]
    Unauthenticated(#[from] Refusal),
    /// The client may ask only about itself, and reserve nothing.
    #[error("{message}")]
    NotAllowed {
        /// The member of the call that the client may not set like this.
        param: &'static str,
        /// The missing right.
        message: String,
    },
    /// The store of reservations and limits failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The reservation is unknown: it never existed, or it ended more than a day ago.
    #[error("no reservation of this name is known; one is known for a day after its end")]
    UnknownReservation,
    /// The reservation was closed otherwise before.
    #[error("{0}")]
    Conflict(&'static str),
    /// The server records no usage history.
    #[error("usage is not recorded with meters in a Redis; it is recorded with meters in the data directory")]
    NoUsageHistory,
    /// The evaluation panicked, so no decision was made. The log has the details.
    #[error("no decision could be made; the server's log says why")]
    Panicked,
}

/// An error of one call of a batch; none of the batch is answered.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("call {index}: {error}")]
pub struct BatchError {
    /// The position of the call, from 0.
    pub index: usize,
    /// The error.
    #[source]
    pub error: PdpError,
}

impl From<SettleError> for PdpError {
    fn from(error: SettleError) -> Self {
        match error {
            SettleError::Request(error) => Self::Request(error),
            SettleError::Unknown => Self::UnknownReservation,
            SettleError::Conflict(message) => Self::Conflict(message),
            SettleError::Store(error) => Self::Store(error),
        }
    }
}

impl From<StandingsError> for PdpError {
    fn from(error: StandingsError) -> Self {
        match error {
            StandingsError::Request(error) => Self::Request(error),
            StandingsError::Store(error) => Self::Store(error),
        }
    }
}
