//! The span of an HTTP request, with the fields that all its log records carry.

use std::pin::Pin;
use std::time::Instant;

use crate::model::TraceParent;
use http::request::Parts;
use http::{Method, Response};
use tracing::field::Empty;
use tracing::{Instrument as _, Level, Span};

/// The span of a request. `route` is the path as the list of routes has it. The path itself may contain a credential, so
/// the span never has it.
pub(crate) fn request_span(head: &Parts, route: &str, trace: Option<TraceParent<'_>>) -> Span {
    // The fields are evaluated only if a subscriber enables the span.
    let span = tracing::info_span!(
        target: "tollgate::http",
        "request",
        method = method(&head.method),
        route = route,
        trace_id = Empty,
        parent_span_id = Empty,
        decision_id = Empty,
        revision = Empty,
    );
    if !span.is_disabled()
        && let Some(trace) = trace
    {
        tracing::record_all!(span, trace_id = trace.trace_id, parent_span_id = trace.parent_id);
    }
    span
}

/// Answers a request within its span.
pub(crate) async fn in_span<B>(span: Span, answering: Pin<&mut impl Future<Output = Response<B>>>) -> Response<B> {
    let began = tracing::enabled!(target: "tollgate::http", Level::DEBUG).then(Instant::now);
    let response = answering.instrument(span.clone()).await;
    if let Some(began) = began {
        let duration_us = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX);
        let status = response.status().as_u16();
        tracing::debug!(target: "tollgate::http", parent: &span, status, duration_us, "request answered");
    }
    response
}

fn method(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        Method::OPTIONS => "OPTIONS",
        _ => "other",
    }
}
