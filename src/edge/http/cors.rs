//! Cross-origin resource sharing (the CORS protocol of the Fetch standard): which pages of other origins may read answers.
//!
//! Without configured origins, responses have no header of CORS, so that browsers keep every such page from reading them.
//! Credentials mode is never allowed: a page sends its credential in `Authorization`, and no cookie exists.

use std::fmt;

use axum::response::Response;
use hyper::header::{
    ACCEPT, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_HEADERS,
    ACCESS_CONTROL_REQUEST_METHOD, AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, ORIGIN, VARY,
};
use hyper::http::uri::Authority;
use hyper::{Method, Request, StatusCode};
use smol_str::SmolStr;

/// Maximum number of configured origins.
pub(crate) const MAX_ORIGINS: usize = 100;
/// Longest origin: the longest host name, with room for a scheme and a port.
const MAX_ORIGIN_BYTES: usize = 300;
/// Response headers that pages may read, besides those that the Fetch standard always allows.
const EXPOSED: HeaderValue = HeaderValue::from_static("x-tollgate-id, retry-after");
/// Seconds for which a browser caches the answer to a preflight request.
const MAX_AGE_SECONDS: HeaderValue = HeaderValue::from_static("600");
/// A preflight answer depends on these headers of the request.
const VARY_OF_PREFLIGHT: HeaderValue =
    HeaderValue::from_static("access-control-request-method, access-control-request-headers");
/// Request headers that pages may set.
const ALLOWED: [&str; 3] = ["traceparent", "tracestate", "baggage"];
/// The beginning of the names of Tollgate's own request headers, all of which pages may set.
const OWN_PREFIX: &str = "x-tollgate-";

/// An origin as browsers send it, or `*`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin(SmolStr);

/// Why a text is not an origin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum OriginError {
    /// The text has another form.
    #[error("expected an origin such as https://console.example.com or http://localhost:3000, without a path")]
    Form,
    /// A browser would write the origin in lower case.
    #[error("expected an origin in lower case, as browsers send it")]
    Case,
    /// A browser would leave out the port.
    #[error("expected an origin without its default port, as browsers send it")]
    DefaultPort,
    /// `null` is sent by pages of any site.
    #[error("the origin `null` cannot be allowed, since pages of any site can send it")]
    Null,
}

impl Origin {
    /// Every origin.
    const ANY: &str = "*";

    /// Parses `scheme://host` or `scheme://host:port`, exactly as browsers send it, or `*`.
    ///
    /// # Errors
    /// If no browser sends this origin.
    pub fn parse(text: &str) -> Result<Self, OriginError> {
        if text == Self::ANY {
            return Ok(Self(Self::ANY.into()));
        }
        if text.eq_ignore_ascii_case("null") {
            return Err(OriginError::Null);
        }
        let (scheme, rest) = text.split_once("://").ok_or(OriginError::Form)?;
        let is_scheme = scheme.starts_with(|first: char| first.is_ascii_alphabetic())
            && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte));
        let authority: Authority = rest.parse().map_err(|_| OriginError::Form)?;
        let host = authority.host();
        let is_host = |byte: u8| byte.is_ascii_alphanumeric() || b"-._[]:".contains(&byte);
        if !is_scheme || authority.as_str() != rest || host.is_empty() || !host.bytes().all(is_host) {
            return Err(OriginError::Form);
        }
        let port = match rest.strip_prefix(host) {
            Some("") => None,
            Some(port) => Some(port.strip_prefix(':').ok_or(OriginError::Form)?),
            None => return Err(OriginError::Form),
        };
        let is_number = |port: &str| port.parse().is_ok_and(|number: u16| number.to_string() == port);
        if port.is_some_and(|port| !is_number(port)) || text.len() > MAX_ORIGIN_BYTES {
            return Err(OriginError::Form);
        }
        if text.bytes().any(|byte| byte.is_ascii_uppercase()) {
            return Err(OriginError::Case);
        }
        if matches!((scheme, port), ("http", Some("80")) | ("https", Some("443"))) {
            return Err(OriginError::DefaultPort);
        }
        Ok(Self(text.into()))
    }

    /// Whether this stands for every origin.
    #[must_use]
    pub fn is_any(&self) -> bool {
        self.0 == Self::ANY
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The value of `Access-Control-Allow-Origin` for a request; `None` if it has no `Origin`, several, or one that is not
/// configured.
pub(super) fn allowed(origins: &[Origin], headers: &HeaderMap) -> Option<HeaderValue> {
    let mut all = headers.get_all(ORIGIN).iter();
    let (origin, None) = (all.next()?, all.next()) else { return None };
    if origins.iter().any(Origin::is_any) {
        return Some(HeaderValue::from_static(Origin::ANY));
    }
    origins.iter().any(|known| known.0.as_bytes() == origin.as_bytes()).then(|| origin.clone())
}

/// Adds the headers with which a browser decides whether the page may read the response. `origin` is from [`allowed`].
pub(super) fn mark(headers: &mut HeaderMap, origin: Option<HeaderValue>) {
    // Also without an allowed origin, or a cache could answer another page with this response.
    headers.append(VARY, HeaderValue::from_static("origin"));
    if let Some(origin) = origin {
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED);
    }
}

/// The answer to a preflight request of an allowed origin, for a path that takes `methods`; `None` for other requests. The
/// router calls this for methods that the path does not take, as no route takes `OPTIONS`. `keys` are the headers that hold
/// API keys.
pub(super) fn preflight<B>(
    origins: &[Origin],
    keys: &[HeaderName],
    request: &Request<B>,
    methods: &str,
) -> Option<Response> {
    let headers = request.headers();
    let is_preflight = request.method() == Method::OPTIONS && headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD);
    if !is_preflight || allowed(origins, headers).is_none() {
        return None;
    }
    let names = allowed_headers(headers, keys);
    let mut response = Response::default();
    *response.status_mut() = StatusCode::NO_CONTENT;
    let headers = response.headers_mut();
    headers.append(VARY, VARY_OF_PREFLIGHT);
    headers.insert(ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::try_from(methods).ok()?);
    headers.insert(ACCESS_CONTROL_MAX_AGE, MAX_AGE_SECONDS);
    headers.extend(names.map(|names| (ACCESS_CONTROL_ALLOW_HEADERS, names)));
    Some(response)
}

/// The requested headers that a page may set, `keys` among them, which hold API keys. Listing the requested ones only, and not all, also covers the names with
/// [`OWN_PREFIX`].
fn allowed_headers(headers: &HeaderMap, keys: &[HeaderName]) -> Option<HeaderValue> {
    let requested = headers.get_all(ACCESS_CONTROL_REQUEST_HEADERS).iter().filter_map(|value| value.to_str().ok());
    let names = requested.flat_map(|names| names.split(',')).filter_map(|name| name.trim().parse::<HeaderName>().ok());
    let may_be_set = |name: &HeaderName| {
        [AUTHORIZATION, CONTENT_TYPE, ACCEPT].contains(name)
            || ALLOWED.contains(&name.as_str())
            || name.as_str().starts_with(OWN_PREFIX)
            || keys.contains(name)
    };
    let allowed: Vec<HeaderName> = names.filter(may_be_set).collect();
    let joined = allowed.iter().map(HeaderName::as_str).collect::<Vec<_>>().join(", ");
    HeaderValue::from_str(&joined).ok().filter(|value| !value.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_is_written_as_browsers_send_it() {
        for good in [
            "https://a.example",
            "http://localhost:3000",
            "http://127.0.0.1:8080",
            "http://[::1]:8080",
            "https://a.example:80",
            "chrome-extension://abcdefghijklmnop",
            "*",
        ] {
            assert!(Origin::parse(good).is_ok(), "{good}");
        }
        for (wrong, error) in [
            ("", OriginError::Form),
            ("a.example", OriginError::Form),
            ("https://", OriginError::Form),
            ("https://a.example/", OriginError::Form),
            ("https://a.example/x", OriginError::Form),
            ("https://u@a.example", OriginError::Form),
            ("https://*.a.example", OriginError::Form),
            ("https://a.example:", OriginError::Form),
            ("https://a.example:0443", OriginError::Form),
            ("https://a.example:65536", OriginError::Form),
            ("https://a b", OriginError::Form),
            ("HTTPS://a.example", OriginError::Case),
            ("https://A.example", OriginError::Case),
            ("https://a.example:443", OriginError::DefaultPort),
            ("http://a.example:80", OriginError::DefaultPort),
            ("null", OriginError::Null),
        ] {
            assert_eq!(Origin::parse(wrong), Err(error), "{wrong}");
        }
    }
}
