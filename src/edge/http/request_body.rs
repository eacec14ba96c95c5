//! Bodies of requests, read within limits of size and time. A wrong body is a 400 that names the mistake, never a 415 or a
//! 422.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use http_body_util::BodyExt as _;
use hyper::body::{Body, Bytes, Frame};
use hyper::header::{CONTENT_TYPE, HeaderMap};

use super::errors::{ApiError, ErrorCode};

/// The limits of a body.
#[derive(Debug, Clone, Copy)]
pub(super) struct BodyLimits {
    pub(super) bytes: usize,
    pub(super) timeout: Duration,
}

/// Refuses a body that is not declared as JSON. Without asking the server first, a web page can only send other types.
pub(super) fn check_content_type(headers: &HeaderMap) -> Result<(), ApiError> {
    let mut values = headers.get_all(CONTENT_TYPE).iter();
    let said = match (values.next(), values.next()) {
        (Some(value), None) => value.as_bytes(),
        _ => b"",
    };
    if said == b"application/json" || is_json(said) {
        return Ok(());
    }
    Err(ApiError::invalid("", "the body must be JSON: send it with `Content-Type: application/json`"))
}

fn is_json(value: &[u8]) -> bool {
    let Ok(value) = std::str::from_utf8(value) else { return false };
    let mut parts = value.split(';').map(str::trim);
    let charset = |part: &str| {
        let value = part.split_once('=').filter(|(name, _)| name.trim().eq_ignore_ascii_case("charset"));
        value.is_some_and(|(_, charset)| charset.trim().trim_matches('"').eq_ignore_ascii_case("utf-8"))
    };
    parts.next().is_some_and(|kind| kind.eq_ignore_ascii_case("application/json"))
        && parts.all(|part| part.is_empty() || charset(part))
}

/// Reads the body.
pub(super) async fn read<B: Body<Data = Bytes> + Unpin>(mut body: B, limits: BodyLimits) -> Result<Bytes, ApiError> {
    if body.size_hint().lower() > u64::try_from(limits.bytes).unwrap_or(u64::MAX) {
        return Err(too_large(limits));
    }
    let late = |_| {
        let message = format!("the body did not come within {} ms", limits.timeout.as_millis());
        ApiError::new(ErrorCode::BodyTimeout, message)
    };
    // Nearly every body arrives in one piece with its head. It is returned without a copy and needs no timer.
    let first = match poll_fn(|cx| Poll::Ready(Pin::new(&mut body).poll_frame(cx))).await {
        Poll::Ready(first) => data(first)?.unwrap_or_default(),
        Poll::Pending => Bytes::new(),
    };
    if body.is_end_stream() {
        return if first.len() > limits.bytes { Err(too_large(limits)) } else { Ok(first) };
    }
    tokio::time::timeout(limits.timeout, collect(first, body, limits)).await.map_err(late)?
}

async fn collect<B>(first: Bytes, mut body: B, limits: BodyLimits) -> Result<Bytes, ApiError>
where
    B: Body<Data = Bytes> + Unpin,
{
    let mut all = Vec::from(first);
    loop {
        if all.len() > limits.bytes {
            return Err(too_large(limits));
        }
        match data(body.frame().await)? {
            Some(more) => all.extend_from_slice(&more),
            None => return Ok(all.into()),
        }
    }
}

/// The bytes of a frame; empty for trailers, `None` at the end.
fn data<E>(frame: Option<Result<Frame<Bytes>, E>>) -> Result<Option<Bytes>, ApiError> {
    let incomplete = |_| ApiError::invalid("", "the body ended before it was complete");
    let frame = frame.transpose().map_err(incomplete)?;
    Ok(frame.map(|frame| frame.into_data().unwrap_or_default()))
}

fn too_large(limits: BodyLimits) -> ApiError {
    ApiError::new(ErrorCode::BodyTooLarge, format!("a body may be {} bytes long at most", limits.bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_json_in_utf_8_is_json() {
        for good in [
            "application/json",
            "Application/JSON",
            "application/json; charset=utf-8",
            "application/json;charset=\"UTF-8\"",
        ] {
            assert!(is_json(good.as_bytes()), "{good}");
        }
        for bad in
            ["", "text/plain", "application/json; charset=latin1", "application/jsonx", "application/json, text/plain"]
        {
            assert!(!is_json(bad.as_bytes()), "{bad}");
        }
    }
}
