//! Where something is sent: `https://` anywhere, and `http://` on this machine alone, where nobody listens in.

use std::fmt;
use std::net::IpAddr;

use hyper::http::Uri;

/// Longest address that is read.
const MAX_BYTES: usize = 2048;

/// An HTTP address, checked. Its path may be what admits its reader, as with chat services, so it is not shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Address {
    is_tls: bool,
    /// As the `Host` header has it.
    authority: Box<str>,
    path: Box<str>,
}

/// A text that is no such address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// No URL with a host.
    #[error("expected a URL such as https://alerts.example.com/tollgate")]
    Form,
    /// A name and a password before the host.
    #[error("a URL with a name or a password in it is not taken")]
    UserInfo,
    /// What would go through the network for all to read.
    #[error("http:// is for this machine alone (127.0.0.1, ::1, localhost); expected https://")]
    NotEncrypted,
}

impl Address {
    /// Reads a URL.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, AddressError> {
        let uri: Uri = text.parse().map_err(|_| AddressError::Form)?;
        let is_tls = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err(AddressError::Form),
        };
        let authority = uri.authority().filter(|_| text.len() <= MAX_BYTES).ok_or(AddressError::Form)?;
        if authority.as_str().contains('@') {
            return Err(AddressError::UserInfo);
        }
        let host = authority.host().trim_start_matches('[').trim_end_matches(']');
        // A port that is none is an authority with more in it than a host.
        let has_port = authority.as_str().len() > authority.host().len();
        if host.is_empty() || (has_port && authority.port_u16().is_none()) {
            return Err(AddressError::Form);
        }
        if !is_tls && !is_this_machine(host) {
            return Err(AddressError::NotEncrypted);
        }
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        Ok(Self { is_tls, authority: authority.as_str().into(), path: path.into() })
    }

    /// The same host, at another path.
    #[must_use]
    pub fn at(&self, path: &str) -> Self {
        Self { path: path.into(), ..self.clone() }
    }

    /// Whether it names a host alone.
    #[must_use]
    pub fn is_bare(&self) -> bool {
        &*self.path == "/"
    }

    /// Whether what is sent is encrypted.
    #[must_use]
    pub fn is_tls(&self) -> bool {
        self.is_tls
    }

    pub(super) fn authority(&self) -> &str {
        &self.authority
    }

    pub(super) fn path(&self) -> &str {
        &self.path
    }
}

fn is_this_machine(host: &str) -> bool {
    host == "localhost" || host.parse().is_ok_and(|address: IpAddr| address.is_loopback())
}

impl fmt::Display for Address {
    /// Without its path.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", if self.is_tls { "https" } else { "http" }, self.authority)
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn plain_text_stays_on_this_machine() {
        for (text, shown) in [
            ("https://alerts.example.com/a?b=c", "https://alerts.example.com"),
            ("https://10.0.0.1:8443/", "https://10.0.0.1:8443"),
            ("http://127.0.0.1:9/x", "http://127.0.0.1:9"),
            ("http://[::1]:9", "http://[::1]:9"),
            ("http://localhost", "http://localhost"),
        ] {
            assert_eq!(Address::parse(text).unwrap().to_string(), shown);
        }
        for (text, error) in [
            ("http://alerts.example.com", AddressError::NotEncrypted),
            ("http://127.0.0.1.example.com", AddressError::NotEncrypted),
            ("http://localhost.example.com", AddressError::NotEncrypted),
            ("http://0.0.0.0", AddressError::NotEncrypted),
            ("https://me:secret@example.com", AddressError::UserInfo),
            ("ftp://example.com", AddressError::Form),
            ("example.com", AddressError::Form),
            ("/a", AddressError::Form),
            ("https://", AddressError::Form),
            ("https://example.com:99999", AddressError::Form),
            ("", AddressError::Form),
        ] {
            assert_eq!(Address::parse(text), Err(error), "{text}");
        }
    }
}
