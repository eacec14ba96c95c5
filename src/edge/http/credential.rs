//! Credentials as they are sent: in a question's `credential`, and in the headers of a caller that proves itself.
//!
//! What is wrong with one is told without showing any of it.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hyper::HeaderMap;
use hyper::header::{AUTHORIZATION, HeaderName, HeaderValue};
use serde::de::MapAccess;
use smol_str::SmolStr;

use super::errors::ApiError;
use super::grammar::{Members, Trail, missing, object, text};
use crate::gate::Credential;
use crate::model::SecretText;

/// Longest credential.
const MAX_BYTES: usize = 16 * 1024;

/// Reads the member `credential`.
pub(super) fn read<'de, A: MapAccess<'de>>(trail: &Trail, map: &mut A) -> Result<Credential, A::Error> {
    // On a trail of its own: what its reader says of a text might show it.
    let inner = Trail::default();
    map.next_value_seed(object(CredentialMembers { trail: &inner, bearer: None, api_key: None, basic: None })).map_err(
        |_shown| {
            let message = "`credential` is one of {\"bearer\": …}, {\"api_key\": …}, {\"basic\": {\"username\": …, \
                           \"password\": …}}, each a text of 1 to 16384 bytes";
            trail.fail(ApiError::invalid("", message))
        },
    )
}

struct CredentialMembers<'t> {
    trail: &'t Trail,
    bearer: Option<SecretText>,
    api_key: Option<SecretText>,
    basic: Option<(SmolStr, SecretText)>,
}

impl<'de, 't> Members<'de, 't> for CredentialMembers<'t> {
    const WHAT: &'static str = "an object with a credential";
    const NAMES: &'static [&'static str] = &["bearer", "api_key", "basic"];
    type Value = Credential;

    fn trail(&self) -> &'t Trail {
        self.trail
    }

    fn member<A: MapAccess<'de>>(&mut self, name: &'static str, map: &mut A) -> Result<(), A::Error> {
        let trail = self.trail;
        match name {
            "bearer" => self.bearer = Some(secret(trail, map, 1)?),
            "api_key" => self.api_key = Some(secret(trail, map, 1)?),
            _ => self.basic = Some(map.next_value_seed(object(Basic { trail, username: None, password: None }))?),
        }
        Ok(())
    }

    fn finish(self) -> Result<Credential, ApiError> {
        match (self.bearer, self.api_key, self.basic) {
            (Some(token), None, None) => Ok(Credential::Bearer(token)),
            (None, Some(key), None) => Ok(Credential::ApiKey(key)),
            (None, None, Some((username, password))) => Ok(Credential::Basic { username, password }),
            _ => Err(missing("bearer")),
        }
    }
}

struct Basic<'t> {
    trail: &'t Trail,
    username: Option<SmolStr>,
    password: Option<SecretText>,
}

impl<'de, 't> Members<'de, 't> for Basic<'t> {
    const WHAT: &'static str = "an object with `username` and `password`";
    const NAMES: &'static [&'static str] = &["username", "password"];
    type Value = (SmolStr, SecretText);

    fn trail(&self) -> &'t Trail {
        self.trail
    }

    fn member<A: MapAccess<'de>>(&mut self, name: &'static str, map: &mut A) -> Result<(), A::Error> {
        match name {
            "username" => self.username = Some(map.next_value_seed(text(self.trail, "a text"))?),
            _ => self.password = Some(secret(self.trail, map, 0)?),
        }
        Ok(())
    }

    fn finish(self) -> Result<Self::Value, ApiError> {
        let username = self.username.filter(|name| name.len() <= MAX_BYTES).ok_or_else(|| missing("username"))?;
        Ok((username, self.password.ok_or_else(|| missing("password"))?))
    }
}

fn secret<'de, A: MapAccess<'de>>(trail: &Trail, map: &mut A, least: usize) -> Result<SecretText, A::Error> {
    let secret: SmolStr = map.next_value_seed(text(trail, "a text"))?;
    if (least..=MAX_BYTES).contains(&secret.len()) {
        return Ok(SecretText::new(secret));
    }
    Err(trail.fail(missing("bearer")))
}

/// The credential that a caller proves itself with, if there is one: `Authorization`, or one of the headers in `keys`.
///
/// # Errors
/// Where there are several, or what is there has no form.
pub(super) fn of_headers(headers: &HeaderMap, keys: &[HeaderName]) -> Result<Option<Credential>, ApiError> {
    let several = || ApiError::invalid("", "a request brings one credential, in one header");
    let mut found = None;
    for name in keys.iter().chain([&AUTHORIZATION]) {
        for value in headers.get_all(name) {
            if found.replace((name, value)).is_some() {
                return Err(several());
            }
        }
    }
    let Some((name, value)) = found else { return Ok(None) };
    let form = |name: &HeaderName| ApiError::invalid("", format!("the header `{name}` holds no credential"));
    let text = plain(value).ok_or_else(|| form(name))?;
    if name != AUTHORIZATION {
        return Ok(Some(Credential::ApiKey(SecretText::new(text))));
    }
    authorization(text).map(Some).ok_or_else(|| form(name))
}

fn plain(value: &HeaderValue) -> Option<&str> {
    value.to_str().ok().map(str::trim).filter(|text| !text.is_empty() && text.len() <= MAX_BYTES)
}

/// `Authorization` (RFC 9110, section 11.6.2): a scheme, whose case does not matter, a space, and the rest.
fn authorization(text: &str) -> Option<Credential> {
    let (scheme, rest) = text.split_once(' ')?;
    let rest = rest.trim();
    if rest.is_empty() {
        return None;
    }
    match scheme.to_ascii_lowercase().as_str() {
        "bearer" => Some(Credential::Bearer(SecretText::new(rest))),
        "digest" => Some(Credential::Digest(SecretText::new(rest))),
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
