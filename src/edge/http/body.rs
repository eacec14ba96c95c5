//! Bodies of responses.

use http_body_util::Full;
use hyper::StatusCode;
use hyper::body::Bytes;
use hyper::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use serde::Serialize;

use crate::gate::DecisionId;

/// Room for a usual answer, so that writing it allocates once.
pub(super) const USUAL_ANSWER_BYTES: usize = 640;

/// The type of every answer that is no page and no metric.
pub(super) const JSON: &str = "application/json";
/// Where the id of a decision stands whose answer has no member for it.
const DECISION_ID: HeaderName = HeaderName::from_static("x-tollgate-id");

/// A response with a whole body.
pub(super) type Response = hyper::Response<Full<Bytes>>;

/// An answer in JSON.
pub(super) fn json(status: StatusCode, value: &impl Serialize) -> Response {
    let mut text = Vec::with_capacity(USUAL_ANSWER_BYTES);
    // Only a map with keys that are no texts, or a type that refuses, can fail; there is neither.
    let _written = serde_json::to_writer(&mut text, value);
    of_type(status, JSON, text)
}

/// An answer of any type.
pub(super) fn of_type(status: StatusCode, kind: &'static str, text: impl Into<Bytes>) -> Response {
    let mut response = Response::new(Full::new(text.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

/// Adds the id of the decision as a header, for response forms that have no member for it.
pub(super) fn with_id(mut response: Response, id: DecisionId) -> Response {
    // An id is hexadecimal digits and a hyphen.
    if let Ok(id) = HeaderValue::try_from(id.to_string()) {
        response.headers_mut().insert(DECISION_ID, id);
    }
    response
}
