//! Which outgoing requests go through a proxy, and which never do.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use hyper::http::Uri;
use hyper_util::client::proxy::matcher::{Intercept, Matcher};

/// The longest URL of a proxy, and the longest list of exceptions.
const MAX_BYTES: usize = 16 * 1024;

/// The proxy of outgoing requests, if one is configured. Its URL may contain a password, so no form of it is shown but the
/// host and port.
#[derive(Clone, Default)]
pub struct Proxy {
    matcher: Option<Arc<Matcher>>,
}

/// A text that is not the URL of a proxy. It does not contain the text, which may have a password in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ProxyError {
    /// It is not a URL that names a host alone.
    #[error("expected the URL of a proxy, such as http://proxy.example.com:3128")]
    Form,
    /// The name or the password has an `@` in it, so that programs disagree on where they end.
    #[error("an `@` in the name or the password of a proxy must be written as %40")]
    Credentials,
    /// It is a proxy of another kind.
    #[error("only proxies with http:// and https:// are supported")]
    Scheme,
    /// The list of exceptions is too long.
    #[error("the list of hosts without a proxy is longer than {MAX_BYTES} bytes")]
    Exceptions,
}

impl Proxy {
    /// Requests go to their hosts directly.
    #[must_use]
    pub fn none() -> Self {
        Self::default()
    }

    /// Requests go through the proxy at `url`, except to the hosts in `exceptions`: a list with commas of names (with the
    /// names below them), addresses, networks (`10.0.0.0/8`) and `*` for every host.
    ///
    /// # Errors
    /// Returns an error if `url` is not the URL of a proxy.
    pub fn new(url: &str, exceptions: &str) -> Result<Self, ProxyError> {
        let uri: Uri = url.parse().map_err(|_| ProxyError::Form)?;
        if !matches!(uri.scheme_str(), None | Some("http" | "https")) {
            return Err(ProxyError::Scheme);
        }
        let is_bare = uri.path_and_query().is_none_or(|path| path == "/");
        let is_host = uri.authority().is_some_and(|authority| {
            let has_port =
                authority.as_str().rsplit('@').next().is_some_and(|rest| rest.len() > authority.host().len());
            !authority.host().is_empty() && (!has_port || authority.port_u16().is_some())
        });
        if url.len() > MAX_BYTES || !is_bare || !is_host {
            return Err(ProxyError::Form);
        }
        // The matcher takes the first `@` for the end of the password, and what follows for the host, which logs show.
        if url.matches('@').count() > 1 {
            return Err(ProxyError::Credentials);
        }
        if exceptions.len() > MAX_BYTES {
            return Err(ProxyError::Exceptions);
        }
        // The matcher ignores a URL that it cannot read, and requests would then go around the proxy.
        let every_host = Matcher::builder().https(url.to_owned()).build();
        if every_host.intercept(&Uri::from_static("https://example.com/")).is_none() {
            return Err(ProxyError::Form);
        }
        let matcher = Matcher::builder().https(url.to_owned()).no(exceptions.to_owned()).build();
        Ok(Self { matcher: Some(Arc::new(matcher)) })
    }

    /// The proxy for a request to `uri`. Only what TLS protects goes through one: plain HTTP is for this machine alone.
    pub(super) fn of(&self, uri: &Uri) -> Option<Intercept> {
        let host = uri.host()?;
        if is_near(host) { None } else { self.matcher.as_ref()?.intercept(uri) }
    }
}

/// Whether a host is this machine or its link, which a proxy cannot mean the same by. Metadata services of clouds are
/// link-local.
fn is_near(host: &str) -> bool {
    let host = host.trim_start_matches('[').trim_end_matches(']').trim_end_matches('.').to_ascii_lowercase();
    match host.parse::<IpAddr>().map(|address| address.to_canonical()) {
        Ok(IpAddr::V4(address)) => address.is_loopback() || address.is_link_local() || address.is_unspecified(),
        Ok(IpAddr::V6(address)) => address.is_loopback() || address.is_unicast_link_local() || address.is_unspecified(),
        Err(_) => host == "localhost" || host.ends_with(".localhost"),
    }
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Proxy").field("configured", &self.matcher.is_some()).finish()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn of(proxy: &Proxy, url: &str) -> bool {
        proxy.of(&url.parse().unwrap()).is_some()
    }

    #[test]
    fn proxy_exceptions_are_hosts_suffixes_networks_and_all() {
        let proxy = Proxy::new("http://proxy.example.com:3128", "a.example, .b.example,10.0.0.0/8, fd00::/8,192.0.2.7")
            .unwrap();
        for direct in [
            "https://a.example/x",
            "https://A.EXAMPLE:8443/x",
            "https://below.a.example",
            "https://below.b.example",
            "https://10.1.2.3",
            "https://[fd00::1]:8443",
            "https://192.0.2.7",
        ] {
            assert!(!of(&proxy, direct), "{direct}");
        }
        for proxied in
            ["https://nota.example", "https://example", "https://11.1.2.3", "https://192.0.2.8", "https://[fc00::1]"]
        {
            assert!(of(&proxy, proxied), "{proxied}");
        }
        assert!(!of(&Proxy::new("proxy:3128", "*").unwrap(), "https://c.example"));
        assert!(of(&Proxy::new("proxy:3128", "").unwrap(), "https://c.example"));
        assert!(!of(&Proxy::none(), "https://c.example"));
    }

    #[test]
    fn proxy_this_machine_and_its_link_are_never_reached_through_it() {
        let proxy = Proxy::new("https://proxy.example.com", "").unwrap();
        for direct in [
            "https://localhost",
            "https://LOCALHOST.",
            "https://issuer.localhost:8443",
            "https://127.0.0.1",
            "https://127.9.9.9:1",
            "https://[::1]",
            "https://[::ffff:127.0.0.1]",
            "https://0.0.0.0",
            "https://169.254.169.254/latest",
            "https://[fe80::1]",
            "http://localhost",
        ] {
            assert!(!of(&proxy, direct), "{direct}");
        }
        assert!(of(&proxy, "https://localhost.example.com"));
        assert!(of(&proxy, "https://notlocalhost"));
    }

    #[test]
    fn proxy_urls_are_checked_and_never_shown() {
        for (text, error) in [
            ("", ProxyError::Form),
            ("http://", ProxyError::Form),
            ("/a", ProxyError::Form),
            ("http://proxy:port", ProxyError::Form),
            ("http://proxy:99999", ProxyError::Form),
            ("http://proxy/path", ProxyError::Form),
            ("http://me:secret@", ProxyError::Form),
            ("http://me:secret@rest@proxy:3128", ProxyError::Credentials),
            ("me:secret@@proxy:3128", ProxyError::Credentials),
            ("socks5://proxy:1080", ProxyError::Scheme),
            ("ftp://proxy", ProxyError::Scheme),
        ] {
            assert_eq!(Proxy::new(text, "").unwrap_err(), error, "{text}");
        }
        for text in
            ["http://proxy", "https://proxy:8443/", "proxy:3128", "http://me:secret%40@proxy:3128", "http://[::1]:3128"]
        {
            let proxy = Proxy::new(text, "").unwrap();
            assert!(of(&proxy, "https://c.example"), "{text}");
            assert!(!format!("{proxy:?}").contains("secret"));
        }
    }
}
