//! The `Host` of a request (RFC 9110, section 7.2; RFC 9112, section 3.2), and what keeps web pages from an open loopback.
//!
//! A web page in a browser on this machine can reach a server on its loopback. With DNS rebinding the name of the
//! page's site resolves to 127.0.0.1, so the browser treats the server as that site and lets the page read its answers.
//! The browser still sends that name in `Host`, and a page cannot change this header.

use std::net::IpAddr;

use hyper::Version;
use hyper::header::{HOST, HeaderValue};
use hyper::http::request::Parts as Head;
use hyper::http::uri::Authority;
use smol_str::SmolStr;

use super::cors::{self, Origin};
use super::errors::{ApiError, ErrorCode};
use crate::model::request_address;

/// The Fetch Metadata header in which a browser marks requests from another site.
const FETCH_SITE: &str = "sec-fetch-site";

/// A name of a host: in small letters, without a port, without a dot at its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostName(SmolStr);

impl HostName {
    /// Reads a name or an address; `None` where it is neither, or has a port.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        if let Some(address) = request_address(text) {
            return Some(Self::of_address(address));
        }
        let authority = text.parse::<Authority>().ok()?;
        let is_name = authority.host() == text && !text.contains('@');
        is_name.then(|| Self::of(&authority))
    }

    fn of(authority: &Authority) -> Self {
        let host = authority.host();
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        match request_address(bare) {
            Some(address) => Self::of_address(address),
            None => Self(host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase().into()),
        }
    }

    fn of_address(address: IpAddr) -> Self {
        Self(address.to_string().into())
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether the host is the loopback under a name that needs no name server (RFC 6761, section 6.3).
    fn is_loopback(&self) -> bool {
        let address = request_address(&self.0);
        self.0 == "localhost" || self.0.ends_with(".localhost") || address.is_some_and(|address| address.is_loopback())
    }
}

/// Checks that a request has exactly one well-formed host.
///
/// # Errors
/// 400 where it does not.
pub(super) fn check(head: &Head) -> Result<(), ApiError> {
    let mut hosts = head.headers.get_all(HOST).iter();
    match (hosts.next(), hosts.next()) {
        (Some(_), Some(_)) => Err(ApiError::invalid("", "a request has one `Host`")),
        (None, _) if head.version == Version::HTTP_11 => {
            Err(ApiError::invalid("", "an HTTP/1.1 request needs exactly one `Host`"))
        }
        (Some(host), None) if name_of(host).is_none() => {
            Err(ApiError::invalid("", "the `Host` is not a host name or address with an optional port"))
        }
        _ => Ok(()),
    }
}

fn name_of(host: &HeaderValue) -> Option<HostName> {
    let authority = Authority::try_from(host.as_bytes()).ok().filter(|authority| !authority.as_str().contains('@'))?;
    // A registered name may hold more (RFC 3986, section 3.2.2), such as the comma of two joined headers; no server is
    // called so.
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._[]:".contains(&byte);
    if !authority.host().bytes().all(is_plain) {
        return None;
    }
    let port = authority.as_str().strip_prefix(authority.host())?;
    let is_port = port.strip_prefix(':').is_some_and(|port| port.is_empty() || port.parse::<u16>().is_ok());
    (port.is_empty() || is_port).then(|| HostName::of(&authority))
}

/// Refuses a request that a web page of another site may have sent, if only the loopback address lets it in.
///
/// # Errors
/// 403, with the way out.
pub(super) fn check_open_loopback(head: &Head, named: &[HostName], origins: &[Origin]) -> Result<(), ApiError> {
    let forbidden = |message: String| Err(ApiError::new(ErrorCode::Forbidden, message));
    // A request target with a host takes precedence over the header, so both of them are checked.
    let of_target = head.uri.authority().map(HostName::of);
    let of_header = head.headers.get(HOST).and_then(name_of);
    let way_out = "on loopback, a request without a credential needs a `Host` that is localhost, an address of the \
                   loopback or one of `hosts:` in tollgate.yaml";
    let mut hosts = of_target.iter().chain(&of_header).peekable();
    if hosts.peek().is_none() {
        return forbidden(format!("the request has no `Host`: {way_out}"));
    }
    if let Some(other) = hosts.find(|host| !host.is_loopback() && !named.contains(host)) {
        return forbidden(format!("the `Host` is `{}`: {way_out}", other.as_str()));
    }
    let is_cross_site = |value: &HeaderValue| value.as_bytes().eq_ignore_ascii_case(b"cross-site");
    let is_page = head.headers.get_all(FETCH_SITE).iter().any(is_cross_site);
    if is_page && cors::allowed(origins, &head.headers).is_none() {
        let message = "a web page of another site made this request (`Sec-Fetch-Site: cross-site`); show a credential, \
                       or add the `Origin` of the page to `cors.origins` in tollgate.yaml";
        return forbidden(message.to_owned());
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn head(uri: &str, headers: &[(&str, &str)]) -> Head {
        let mut request = hyper::Request::get(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    #[test]
    fn a_host_is_a_name_or_an_address_with_a_port_or_without() {
        for host in ["localhost", "LOCALHOST:8181", "a.b-c.d", "127.0.0.1:1", "[::1]", "[::1]:8181", "x:", "x_y"] {
            assert!(check(&head("/", &[("host", host)])).is_ok(), "{host}");
        }
        for host in ["", "a b", "a/b", "user@a", "a:b", "a:99999", "::1", "[::1", "a?b", "http://a", "a,b", "a:1:2"] {
            assert!(check(&head("/", &[("host", host)])).is_err(), "{host}");
        }
        assert!(check(&head("/", &[])).is_err());
        assert!(check(&head("/", &[("host", "a"), ("host", "a")])).is_err());
        let (mut old, ()) = hyper::Request::get("/").version(Version::HTTP_10).body(()).unwrap().into_parts();
        assert!(check(&old).is_ok());
        old.headers.insert(HOST, HeaderValue::from_static("a b"));
        assert!(check(&old).is_err());
    }

    #[test]
    fn only_names_of_the_loopback_and_those_that_are_configured_are_open() {
        let named = ["tollgate.internal", "192.0.2.7", "2001:db8::7"].map(|name| HostName::parse(name).unwrap());
        let open = |uri: &str, host: &str| check_open_loopback(&head(uri, &[("host", host)]), &named, &[]).is_ok();
        for host in [
            "localhost",
            "LocalHost:8181",
            "localhost.",
            "a.localhost:1",
            "127.0.0.1",
            "127.9.9.9:80",
            "[::1]:8181",
            "[::ffff:127.0.0.1]",
            "Tollgate.Internal:8181",
            "192.0.2.7:8181",
            "[2001:DB8::7]",
        ] {
            assert!(open("/", host), "{host}");
        }
        for host in [
            "evil.example",
            "localhost.evil.example",
            "evillocalhost",
            "127.0.0.1.evil.example",
            "0.0.0.0",
            "192.0.2.8",
            "[::2]",
            "x.tollgate.internal",
        ] {
            assert!(!open("/", host), "{host}");
        }
        assert!(open("http://localhost/metrics", "localhost"));
        assert!(!open("http://evil.example/metrics", "localhost") && !open("http://localhost/metrics", "evil.example"));
        assert!(check_open_loopback(&head("/", &[]), &named, &[]).is_err());
        let site = |site: &str| {
            check_open_loopback(&head("/", &[("host", "localhost"), (FETCH_SITE, site)]), &[], &[]).is_ok()
        };
        assert!(site("same-origin") && site("none") && site("same-site"));
        assert!(!site("cross-site") && !site("Cross-Site"));
    }

    #[test]
    fn a_name_of_a_host_has_no_port() {
        for (text, name) in [("A.example.", Some("a.example")), ("::1", Some("::1")), ("[::1]", Some("::1"))] {
            assert_eq!(HostName::parse(text).as_ref().map(HostName::as_str), name, "{text}");
        }
        for wrong in ["", "a:80", "[::1]:80", "a/b", "u@a", "a b", "*"] {
            assert_eq!(HostName::parse(wrong).filter(|name| name.as_str() != "*"), None, "{wrong}");
        }
    }
}
