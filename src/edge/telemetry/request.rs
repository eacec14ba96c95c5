//! The span of an HTTP request, with the fields that all its log records carry.

use std::pin::Pin;
use std::time::Instant;

use crate::model::hex;
use http::request::Parts;
use http::{HeaderMap, Method, Response};
use tracing::field::Empty;
use tracing::{Instrument as _, Level, Span};

/// The trace to which a request belongs, according to its caller. [W3C Trace
/// Context](https://www.w3.org/TR/trace-context/#traceparent-header)
#[derive(Debug, PartialEq, Eq)]
struct TraceParent<'a> {
    trace_id: &'a str,
    parent_id: &'a str,
}

impl<'a> TraceParent<'a> {
    /// Reads the header; `None` if it is missing, repeated or malformed. The request is answered in any case.
    fn of(headers: &'a HeaderMap) -> Option<Self> {
        let mut all = headers.get_all("traceparent").iter();
        let (first, None) = (all.next()?, all.next()) else { return None };
        Self::parse(first.to_str().ok()?)
    }

    fn parse(text: &'a str) -> Option<Self> {
        let mut parts = text.split('-');
        let (version, trace_id) = (digits(parts.next()?, 2)?, digits(parts.next()?, 32)?);
        let (parent_id, _flags) = (digits(parts.next()?, 16)?, digits(parts.next()?, 2)?);
        // Later versions may have more parts; version 00 has exactly these, and `ff` is invalid.
        let is_whole = version != "ff" && (version != "00" || parts.next().is_none());
        let is_zero = |id: &str| id.bytes().all(|byte| byte == b'0');
        (is_whole && !is_zero(trace_id) && !is_zero(parent_id)).then_some(Self { trace_id, parent_id })
    }
}

/// `text` if it has exactly `length` lower-case hexadecimal digits.
fn digits(text: &str, length: usize) -> Option<&str> {
    hex::is_lower(text, length).then_some(text)
}

/// The span of a request. `route` is the path as the list of routes has it. The path itself may contain a credential, so
/// the span never has it.
pub(crate) fn request_span(head: &Parts, route: &str) -> Span {
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
        && let Some(trace) = TraceParent::of(&head.headers)
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

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn a_traceparent_is_read_as_the_standard_says() {
        let (trace_id, parent_id) = ("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7");
        let later = GOOD.replace("00-4b", "01-4b") + "-more";
        for text in [GOOD, &GOOD.replace("00-4b", "fe-4b"), &later] {
            assert_eq!(TraceParent::parse(text), Some(TraceParent { trace_id, parent_id }), "{text}");
        }
        for text in [
            "",
            "00",
            &GOOD.to_uppercase(),
            &GOOD.replace("00-4b", "ff-4b"),
            &GOOD.replace("00-4b", "0-4b"),
            &GOOD.replace(trace_id, &"0".repeat(32)),
            &GOOD.replace(parent_id, &"0".repeat(16)),
            &GOOD.replace("736-", "73-"),
            &GOOD.replace("2b7-01", "2b7-0x"),
            &GOOD.replace("2b7-01", "2b7"),
            &format!("{GOOD}-more"),
            &format!("{GOOD} "),
            &format!(" {GOOD}"),
            &GOOD.replace('-', "_"),
        ] {
            assert_eq!(TraceParent::parse(text), None, "{text}");
        }
    }

    #[test]
    fn two_traceparents_are_none() {
        let mut headers = HeaderMap::new();
        headers.append("traceparent", GOOD.parse().unwrap());
        assert!(TraceParent::of(&headers).is_some());
        headers.append("traceparent", GOOD.parse().unwrap());
        assert_eq!(TraceParent::of(&headers), None);
    }
}
