//! The body of `/v1/token`: JSON, or a form with the same names (RFC 6749). No error shows any part of it.

use schemars::JsonSchema;
use serde::Deserialize;

use super::super::errors::ApiError;
use super::super::query::form_decoded;
use super::json::{Object, Optional, RequestBody, Secret, Text};
use crate::model::SecretText;
use crate::pdp::Credential;

/// A credential to exchange for tokens. Without `grant_type`, the headers hold the credential.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in super::super) struct TokenRequest<'a> {
    /// `api_key`, `password` or `refresh_token`.
    #[serde(default, borrow)]
    #[schemars(extend("enum" = ["api_key", "password", "refresh_token"]))]
    grant_type: Optional<Text<'a>>,
    /// With `api_key`.
    #[serde(default, borrow)]
    api_key: Optional<Secret<'a>>,
    /// With `password`.
    #[serde(default, borrow)]
    username: Optional<Secret<'a>>,
    /// With `password`.
    #[serde(default, borrow)]
    password: Optional<Secret<'a>>,
    /// With `refresh_token`; it is valid once.
    #[serde(default, borrow)]
    refresh_token: Optional<Secret<'a>>,
}

impl RequestBody for TokenRequest<'_> {
    const EXPECTED: &'static str = "an object with `grant_type`";
}

/// The body, checked.
pub(in super::super) enum Grant {
    /// Tokens for the credential in the headers.
    Headers,
    /// Tokens for this credential.
    Credential(Credential),
    /// The next tokens.
    Refresh(SecretText),
}

/// Reads a JSON body.
pub(in super::super) fn token_of_json(body: &[u8]) -> Result<Grant, ApiError> {
    let wrong = |_shows_it| {
        let message =
            "the body is no JSON object of texts whose members stand once, or has a member that no grant takes";
        ApiError::invalid("", message)
    };
    serde_json::from_slice::<Object<TokenRequest>>(body).map_err(wrong)?.0.try_into()
}

/// Reads a form.
pub(in super::super) fn token_of_form(body: &[u8]) -> Result<Grant, ApiError> {
    let wrong =
        || ApiError::invalid("", "the body is no form whose names stand once, or has a name that no grant takes");
    TokenRequest::of_form(body).ok_or_else(wrong)?.try_into()
}

impl TokenRequest<'_> {
    fn of_form(body: &[u8]) -> Option<Self> {
        let mut written = Self::default();
        for pair in std::str::from_utf8(body).ok()?.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=')?;
            let value = Text(form_decoded(value)?.into());
            let before = match form_decoded(name)?.as_str() {
                "grant_type" => written.grant_type.0.replace(value).map(Secret),
                "api_key" => written.api_key.0.replace(Secret(value)),
                "username" => written.username.0.replace(Secret(value)),
                "password" => written.password.0.replace(Secret(value)),
                "refresh_token" => written.refresh_token.0.replace(Secret(value)),
                _ => return None,
            };
            if before.is_some() {
                return None;
            }
        }
        Some(written)
    }
}

impl TryFrom<TokenRequest<'_>> for Grant {
    type Error = ApiError;

    fn try_from(written: TokenRequest<'_>) -> Result<Self, ApiError> {
        let TokenRequest { grant_type, mut api_key, mut username, mut password, mut refresh_token } = written;
        let grant = match grant_type.0.as_ref().map(|kind| &*kind.0) {
            None => Self::Headers,
            Some("api_key") => Self::Credential(Credential::ApiKey(needed(&mut api_key, "api_key")?)),
            Some("password") => Self::Credential(Credential::Basic {
                username: needed(&mut username, "username")?.expose().into(),
                password: needed(&mut password, "password")?,
            }),
            Some("refresh_token") => Self::Refresh(needed(&mut refresh_token, "refresh_token")?),
            Some(_) => {
                let message = "`grant_type` is `api_key`, `password` or `refresh_token`; without it the headers hold the credential";
                return Err(ApiError::invalid("grant_type", message));
            }
        };
        if [api_key, username, password, refresh_token].iter().any(|other| other.0.is_some()) {
            return Err(ApiError::invalid("", "the body has a member that this grant does not take"));
        }
        Ok(grant)
    }
}

/// Takes the member `param`, which the grant needs.
fn needed(written: &mut Optional<Secret<'_>>, param: &'static str) -> Result<SecretText, ApiError> {
    let secret = written.0.take().filter(|Secret(text)| !text.0.is_empty());
    secret.map(|Secret(text)| SecretText::new(text.0)).ok_or_else(|| super::missing(param))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_form_is_read_as_browsers_write_it() {
        for (text, api_key) in [
            ("api_key=1&username=x+y", Some("1")),
            ("api_key=%41%2b", Some("A+")),
            ("api_key=%C3%A9", Some("é")),
            ("api_key=%ff", None),
            ("api_key=%4", None),
            ("api_key=1&api_key=2", None),
            ("api_key=1&api%5Fkey=2", None),
            ("api_key", None),
            ("scope=1", None),
        ] {
            let found = TokenRequest::of_form(text.as_bytes()).and_then(|form| form.api_key.0);
            assert_eq!(found.as_ref().map(|Secret(text)| &*text.0), api_key, "{text}");
        }
    }
}
