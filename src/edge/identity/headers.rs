//! The credential of a request, in its headers or in the connection that it came by: one, or it is refused.
//!
//! What is wrong with one is told without showing any of it.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::HeaderMap;
use http::header::{AUTHORIZATION, HeaderName, HeaderValue};
use http::request::Parts;
use smol_str::SmolStr;

use super::digest;
use crate::gate::{Credential, Described, Peer, Presented};
use crate::model::SecretText;

/// Longest credential.
const MAX_BYTES: usize = 16 * 1024;
/// What a proxy says of its client's certificate.
const FORWARDED: &str = "x-forwarded-client-cert";

/// Which headers hold credentials.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CredentialHeaders {
    /// Headers that hold a key, besides `Authorization`.
    pub keys: Box<[HeaderName]>,
    /// Whether `x-forwarded-client-cert` is a credential. A provider says whose.
    pub forwarded_certificates: bool,
}

impl Default for CredentialHeaders {
    fn default() -> Self {
        let keys = ["x-api-key", "api-key"].map(HeaderName::from_static).into();
        Self { keys, forwarded_certificates: false }
    }
}

/// Why no credential can be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HeadersError {
    /// There are several, and none is more right than another.
    #[error("a request brings one credential, in one header")]
    Several,
    /// What is there is none.
    #[error("the header `{0}` holds no credential")]
    Form(HeaderName),
}

impl CredentialHeaders {
    /// The credential of a request: in its headers, else what a proxy says of the client, else the client's certificates.
    ///
    /// # Errors
    /// Where there are several in headers, or what is there has no form.
    pub fn presented(&self, head: &Parts, peer: &Peer) -> Result<Option<Presented>, HeadersError> {
        let credential = match self.credential(&head.headers)? {
            Some(credential) => Some(credential),
            None => match self.forwarded(&head.headers, peer)? {
                Some(credential) => Some(credential),
                None => peer.certificates.clone().map(Credential::Certificates),
            },
        };
        let with = |credential| Presented { credential, source: peer.address, request: self.described(head) };
        Ok(credential.map(with))
    }

    /// The credential in a request's headers, if there is one.
    ///
    /// # Errors
    /// As [`CredentialHeaders::presented`].
    pub fn credential(&self, headers: &HeaderMap) -> Result<Option<Credential>, HeadersError> {
        let mut found = None;
        for name in self.keys.iter().chain([&AUTHORIZATION]) {
            for value in headers.get_all(name) {
                if found.replace((name, value)).is_some() {
                    return Err(HeadersError::Several);
                }
            }
        }
        let Some((name, value)) = found else { return Ok(None) };
        let found = text(value).and_then(|text| {
            let key = || {
                let key = after_bearer(text);
                (1..=MAX_BYTES).contains(&key.len()).then(|| Credential::ApiKey(SecretText::new(key)))
            };
            if name == AUTHORIZATION { authorization(text) } else { key() }
        });
        found.map(Some).ok_or_else(|| HeadersError::Form(name.clone()))
    }

    fn forwarded(&self, headers: &HeaderMap, peer: &Peer) -> Result<Option<Credential>, HeadersError> {
        let mut values = headers.get_all(FORWARDED).iter().filter(|_| self.forwarded_certificates);
        let Some(value) = values.next() else { return Ok(None) };
        if values.next().is_some() {
            return Err(HeadersError::Several);
        }
        let said = value.to_str().map_err(|_| HeadersError::Form(HeaderName::from_static(FORWARDED)))?;
        Ok(Some(Credential::ForwardedCertificate { said: said.into(), by: peer.address }))
    }

    /// The request, without what holds credentials.
    fn described(&self, head: &Parts) -> Described {
        let held = ["authorization", "cookie", "proxy-authorization", "x-api-key", "api-key", FORWARDED];
        let text = |(name, value): (&HeaderName, &HeaderValue)| {
            let hidden = held.contains(&name.as_str()) || self.keys.contains(name);
            let shown = value.to_str().ok().filter(|_| !hidden)?;
            Some((SmolStr::new(name.as_str()), SmolStr::new(shown)))
        };
        Described {
            method: head.method.as_str().into(),
            path: head.uri.path().into(),
            query: head.uri.query().unwrap_or_default().into(),
            headers: head.headers.iter().filter_map(text).collect(),
            params: Box::default(),
        }
    }
}

fn text(value: &HeaderValue) -> Option<&str> {
    value.to_str().ok().map(str::trim).filter(|text| !text.is_empty())
}

/// A credential without the `Bearer` that stands before it where somebody hands on a whole `Authorization`, or where a
/// gateway's clients put it in a header of their own (`x-litellm-api-key`).
#[must_use]
pub fn after_bearer(text: &str) -> &str {
    let mut text = text;
    while let Some((scheme, rest)) = text.split_once(char::is_whitespace)
        && scheme.eq_ignore_ascii_case("bearer")
    {
        text = rest.trim();
    }
    text
}

/// `Authorization` (RFC 9110, section 11.6.2): a scheme, whose case does not matter, a space, and the rest.
fn authorization(text: &str) -> Option<Credential> {
    let (scheme, rest) = text.split_once(' ')?;
    let rest = rest.trim();
    if rest.is_empty() || rest.len() > MAX_BYTES {
        return None;
    }
    match scheme.to_ascii_lowercase().as_str() {
        "bearer" => Some(after_bearer(rest))
            .filter(|rest| !rest.is_empty())
            .map(|rest| Credential::Bearer(SecretText::new(rest))),
        "digest" => {
            let username = digest::username(rest).map(SmolStr::from);
            Some(Credential::Digest { username, parameters: SecretText::new(rest) })
        }
        "basic" => {
            // RFC 7617: UTF-8, and the name ends at the first colon.
            let pair = zeroize::Zeroizing::new(STANDARD.decode(rest).ok()?);
            let (username, password) = std::str::from_utf8(&pair).ok()?.split_once(':')?;
            Some(Credential::Basic { username: username.into(), password: SecretText::new(password) })
        }
        _ => None,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_header_is_read_as_it_is_written() {
        for (text, read) in [
            ("Bearer abc", Some("Bearer(SecretText(…))")),
            ("bearer   abc ", Some("Bearer(SecretText(…))")),
            ("Basic dTpwOng=", Some("Basic { username: \"u\", password: SecretText(…) }")),
            ("Basic dXA=", None),
            ("Basic !!!", None),
            ("Basic /zo=", None),
            ("Bearer", None),
            ("Bearer ", None),
            ("Negotiate abc", None),
            ("", None),
        ] {
            assert_eq!(authorization(text).map(|found| format!("{found:?}")).as_deref(), read, "{text}");
        }
        let Some(Credential::Basic { password, .. }) = authorization("Basic dTpwOng=") else { panic!("no password") };
        assert_eq!(password.expose(), "p:x");
    }
}
