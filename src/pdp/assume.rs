//! Decisions without a server: the command line and tests state what is used of the limits.

use crate::gate::{Assumptions, Explanation};
use crate::model::{Decision, Request, RequestError};
use crate::policy::Snapshot;

/// Decides one request under assumptions about limits, and explains the result of each rule. Nothing is counted or
/// recorded.
///
/// # Errors
/// If the schema does not accept the request.
pub fn decide_assuming(
    snapshot: &Snapshot,
    assumptions: &Assumptions,
    request: &Request,
) -> Result<(Decision, Explanation), RequestError> {
    assumptions.decide(snapshot, request)
}
