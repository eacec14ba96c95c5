//! Credentials in a request's `credential`. Errors about one show no part of it.

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::value::RawValue;
use smol_str::SmolStr;

use super::super::errors::ApiError;
use super::json::{Object, Optional, RequestBody, Text};
use crate::edge::identity::after_bearer;
use crate::model::SecretText;
use crate::pdp::Credential;

/// Longest credential.
const MAX_BYTES: usize = 16 * 1024;
const FORM: &str = "`credential` is one of {\"bearer\": …}, {\"api_key\": …}, {\"basic\": {\"username\": …, \
                    \"password\": …}}, each a text of 1 to 16384 bytes";

/// One credential, which proves the principal. The answer to an invalid one is a forbid.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Credential", extend("minProperties" = 1, "maxProperties" = 1))]
pub(super) struct WrittenCredential<'a> {
    /// A token, or a key.
    #[serde(default, borrow)]
    #[schemars(length(min = 1, max = 16384))]
    bearer: Optional<Text<'a>>,
    #[serde(default, borrow)]
    #[schemars(length(min = 1, max = 16384))]
    api_key: Optional<Text<'a>>,
    #[serde(default, borrow)]
    basic: Optional<Object<Basic<'a>>>,
}

impl RequestBody for WrittenCredential<'_> {
    const EXPECTED: &'static str = "an object with a credential";
}

/// A username and a password.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(inline)]
struct Basic<'a> {
    #[serde(borrow)]
    #[schemars(length(max = 16384))]
    username: Text<'a>,
    #[serde(borrow)]
    #[schemars(length(max = 16384))]
    password: Text<'a>,
}

impl RequestBody for Basic<'_> {
    const EXPECTED: &'static str = "an object with `username` and `password`";
}

/// Checks the member `credential`. It is parsed apart from its request, because errors of the parser quote unexpected
/// values.
pub(super) fn credential(written: &RawValue) -> Result<Credential, ApiError> {
    let parsed = serde_json::from_str::<Object<WrittenCredential>>(written.get()).ok();
    let checked = parsed.and_then(|Object(written)| Credential::try_from(written).ok());
    checked.ok_or_else(|| ApiError::invalid("credential", FORM))
}

/// The credential has the wrong form. The error of [`credential`] describes the right one.
pub(super) struct WrongForm;

impl TryFrom<WrittenCredential<'_>> for Credential {
    type Error = WrongForm;

    fn try_from(written: WrittenCredential<'_>) -> Result<Self, WrongForm> {
        match (written.bearer.0, written.api_key.0, written.basic.0) {
            (Some(token), None, None) => Ok(Self::Bearer(token_of(&token)?)),
            (None, Some(key), None) => Ok(Self::ApiKey(token_of(&key)?)),
            (None, None, Some(Object(Basic { username, password })))
                if username.0.len() <= MAX_BYTES && password.0.len() <= MAX_BYTES =>
            {
                Ok(Self::Basic { username: SmolStr::from(username.0), password: SecretText::new(&*password.0) })
            }
            _ => Err(WrongForm),
        }
    }
}

/// The token without the `Bearer` of a gateway that passes on a whole `Authorization` header.
fn token_of(written: &Text<'_>) -> Result<SecretText, WrongForm> {
    match after_bearer(&written.0) {
        token if !token.is_empty() && written.0.len() <= MAX_BYTES => Ok(SecretText::new(token)),
        _ => Err(WrongForm),
    }
}
