//! Errors as clients see them: one table from what went wrong to status and code.

use std::borrow::Cow;

use hyper::StatusCode;
use hyper::header::{HeaderValue, RETRY_AFTER};
use schemars::JsonSchema;
use serde::Serialize;

pub(super) use super::body::Response;
use super::body::json;
use crate::edge::answer::retry_after_of;
use crate::model::{Refusal, RefusalReason, RequestError, RequestErrorCode, UidError, masked};
use crate::pdp::{BatchError, PdpError};

/// Everything that can be wrong with what was sent, or with the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ErrorCode {
    /// The request is none that the schema takes.
    Request(RequestErrorCode),
    /// Something of a later version.
    NotSupported,
    Unauthenticated,
    /// A digest that was right for a nonce that has aged: the client is to try again with a new one.
    StaleNonce,
    TooManyFailures,
    Forbidden,
    NotFound,
    MethodNotAllowed,
    BodyTimeout,
    BodyTooLarge,
    BatchTooLarge,
    ReloadFailed,
    ReloadHeld,
    ReservationUnknown,
    Conflict,
    StoreUnavailable,
    NoBundle,
    ProviderUnavailable,
    Unavailable,
}

impl ErrorCode {
    /// The table.
    fn entry(self) -> (StatusCode, &'static str) {
        match self {
            Self::Request(code @ RequestErrorCode::IdempotencyConflict) => (StatusCode::CONFLICT, code.as_str()),
            Self::Request(code) => (StatusCode::BAD_REQUEST, code.as_str()),
            Self::ReservationUnknown => (StatusCode::NOT_FOUND, "reservation_unknown"),
            Self::Conflict => (StatusCode::CONFLICT, "conflict"),
            Self::StoreUnavailable => (StatusCode::SERVICE_UNAVAILABLE, "store_unavailable"),
            Self::NotSupported => (StatusCode::BAD_REQUEST, "not_supported"),
            Self::Unauthenticated | Self::StaleNonce => (StatusCode::UNAUTHORIZED, "unauthenticated"),
            Self::TooManyFailures => (StatusCode::TOO_MANY_REQUESTS, "too_many_failures"),
            Self::Forbidden => (StatusCode::FORBIDDEN, "forbidden"),
            Self::NotFound => (StatusCode::NOT_FOUND, "not_found"),
            Self::MethodNotAllowed => (StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed"),
            Self::BodyTimeout => (StatusCode::REQUEST_TIMEOUT, "body_timeout"),
            Self::ReloadFailed => (StatusCode::CONFLICT, "reload_failed"),
            Self::ReloadHeld => (StatusCode::CONFLICT, "reload_held"),
            Self::BodyTooLarge => (StatusCode::PAYLOAD_TOO_LARGE, "body_too_large"),
            Self::BatchTooLarge => (StatusCode::PAYLOAD_TOO_LARGE, "batch_too_large"),
            Self::NoBundle => (StatusCode::SERVICE_UNAVAILABLE, "no_bundle"),
            Self::ProviderUnavailable => (StatusCode::SERVICE_UNAVAILABLE, "provider_unavailable"),
            Self::Unavailable => (StatusCode::SERVICE_UNAVAILABLE, "unavailable"),
        }
    }
}

/// Every code of an error, for the description of the API.
const CODES: [&str; 27] = [
    "invalid_request",
    "unknown_action",
    "unknown_entity_type",
    "invalid_name",
    "invalid_context",
    "reserved_context",
    "invalid_candidates",
    "invalid_entities",
    "amount_needed",
    "idempotency_conflict",
    "reservation_unknown",
    "conflict",
    "store_unavailable",
    "not_supported",
    "unauthenticated",
    "too_many_failures",
    "forbidden",
    "not_found",
    "method_not_allowed",
    "body_timeout",
    "reload_failed",
    "reload_held",
    "body_too_large",
    "batch_too_large",
    "no_bundle",
    "provider_unavailable",
    "unavailable",
];

/// Longest message, and longest `param`, of an error that shows text from a request.
const MAX_SHOWN_BYTES: usize = 2048;

/// Why there is no answer. Never a decision: whoever gets one must not let the request through.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ApiError {
    pub(super) code: ErrorCode,
    pub(super) message: String,
    /// The member that is wrong; empty where none is.
    pub(super) param: String,
    /// When to try again, where waiting helps.
    pub(super) retry_after_seconds: Option<u64>,
}

/// An error.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Error")]
pub(super) struct Wire<'a> {
    error: WireError<'a>,
}

#[derive(Serialize, JsonSchema)]
#[schemars(inline)]
struct WireError<'a> {
    #[schemars(extend("enum" = CODES))]
    code: &'static str,
    message: Cow<'a, str>,
    /// The member that is wrong, such as `requests[3].action`.
    param: Option<Cow<'a, str>>,
}

impl ApiError {
    pub(super) fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), param: String::new(), retry_after_seconds: None }
    }

    /// What is no request at all.
    pub(super) fn invalid(param: impl Into<String>, message: impl Into<String>) -> Self {
        Self { param: param.into(), ..Self::new(ErrorCode::Request(RequestErrorCode::InvalidRequest), message) }
    }

    /// Before the first bundle.
    pub(super) fn no_bundle() -> Self {
        let message = "no bundle is active yet; GET /bundle tells what is wrong with the newest files";
        Self::new(ErrorCode::NoBundle, message)
    }

    /// The error for a caller with a refused credential.
    pub(super) fn refused(refusal: &Refusal) -> Self {
        let code = match refusal.reason {
            RefusalReason::TooManyFailures => ErrorCode::TooManyFailures,
            RefusalReason::ProviderUnavailable => ErrorCode::ProviderUnavailable,
            _ => ErrorCode::Unauthenticated,
        };
        Self { retry_after_seconds: refusal.retry_after_seconds, ..Self::new(code, refusal.message.as_str()) }
    }

    /// The same error of a member of `outer`: `requests[3]` makes `action` into `requests[3].action`.
    pub(super) fn within(mut self, outer: &str) -> Self {
        self.param = joined(outer, &self.param);
        self
    }

    /// As an item of a batch whose other items are answered all the same.
    pub(super) fn value(&self) -> serde_json::Value {
        serde_json::to_value(self.wire()).unwrap_or_default()
    }

    /// Text from the request is shown only after masking everything that looks like a credential, and only in part if it
    /// is long.
    fn wire(&self) -> Wire<'_> {
        let (status, code) = self.code.entry();
        let shown = |text| match status {
            // A cut could make a credential unrecognizable, so masking comes first.
            StatusCode::BAD_REQUEST => shortened(masked(text)),
            _ => Cow::Borrowed(text),
        };
        let param = Some(self.param.as_str()).filter(|param| !param.is_empty()).map(shown);
        Wire { error: WireError { code, message: shown(&self.message), param } }
    }

    pub(super) fn response(&self) -> Response {
        let mut response = json(self.code.entry().0, &self.wire());
        if let Some(seconds) = retry_after_of(response.status(), self.retry_after_seconds) {
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

/// `text` without its middle if it is longer than [`MAX_SHOWN_BYTES`]. Errors of the JSON parser quote the whole value that
/// they are about, and state what is expected behind it.
fn shortened(text: Cow<'_, str>) -> Cow<'_, str> {
    if text.len() <= MAX_SHOWN_BYTES {
        return text;
    }
    let end = text.floor_char_boundary(MAX_SHOWN_BYTES * 3 / 4);
    let start = text.ceil_char_boundary(text.len() - MAX_SHOWN_BYTES / 4);
    let (head, tail) = (text.get(..end).unwrap_or_default(), text.get(start..).unwrap_or_default());
    Cow::Owned(format!("{head} … {tail}"))
}

/// A member within another, as `param` names it.
pub(super) fn joined(outer: &str, inner: &str) -> String {
    match (outer.is_empty(), inner.is_empty()) {
        (true, _) => inner.to_owned(),
        (_, true) => outer.to_owned(),
        _ if inner.starts_with('[') => format!("{outer}{inner}"),
        _ => format!("{outer}.{inner}"),
    }
}

impl From<RequestError> for ApiError {
    fn from(error: RequestError) -> Self {
        Self { param: error.param, ..Self::new(ErrorCode::Request(error.code), error.message) }
    }
}

impl From<UidError> for ApiError {
    fn from(error: UidError) -> Self {
        let code = match &error {
            UidError::Form { .. } => RequestErrorCode::InvalidRequest,
            UidError::Type { .. } => RequestErrorCode::UnknownEntityType,
            UidError::Name(_) => RequestErrorCode::InvalidName,
        };
        Self::new(ErrorCode::Request(code), error.to_string())
    }
}

impl From<PdpError> for ApiError {
    fn from(error: PdpError) -> Self {
        let message = error.to_string();
        let (code, param) = match error {
            PdpError::NoBundle => return Self::no_bundle(),
            PdpError::Request(error) => return error.into(),
            PdpError::Unauthenticated(refusal) => return Self::refused(&refusal),
            PdpError::NotAllowed { param, .. } => (ErrorCode::Forbidden, param),
            PdpError::Store(_) => (ErrorCode::StoreUnavailable, ""),
            PdpError::UnknownReservation => (ErrorCode::ReservationUnknown, "reservation"),
            PdpError::Conflict(_) => (ErrorCode::Conflict, ""),
            PdpError::NoUsageHistory => (ErrorCode::NotSupported, ""),
            PdpError::Panicked => (ErrorCode::Unavailable, ""),
        };
        Self { param: param.to_owned(), ..Self::new(code, message) }
    }
}

impl From<BatchError> for ApiError {
    fn from(BatchError { index, error }: BatchError) -> Self {
        match error {
            PdpError::NoBundle => Self::no_bundle(),
            error => Self::from(error).within(&format!("requests[{index}]")),
        }
    }
}
