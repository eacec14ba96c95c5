//! The body of `PUT /v1/users/{user}/password`. No error shows any part of it.

use schemars::JsonSchema;
use serde::Deserialize;

use super::super::errors::ApiError;
use super::json::{Optional, RequestBody, Secret, read};
use super::missing;
use crate::edge::identity::{MAX_PASSWORD_BYTES, MIN_PASSWORD_BYTES};
use crate::model::{PasswordHash, SecretText};

const FORM: &str = "the body is {\"password\": …} or {\"password_hash\": \"$argon2id$…\"}, with a `current_password` \
                    if it is required";

/// The new password of a user: itself, or its hash.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(
    rename = "NewPassword",
    extend("oneOf" = [
        serde_json::json!({ "required": ["password"] }), serde_json::json!({ "required": ["password_hash"] })
    ])
)]
pub(in super::super) struct PasswordRequest<'a> {
    /// 8 to 1024 bytes, no NUL. Only its argon2id hash is stored.
    #[serde(default, borrow)]
    password: Optional<Secret<'a>>,
    /// An argon2id hash, as a bundle takes it. Only an administrator may set one.
    #[serde(default, borrow)]
    password_hash: Optional<Secret<'a>>,
    /// The current password; required from a person who sets their own password with a token.
    #[serde(default, borrow)]
    current_password: Optional<Secret<'a>>,
}

impl RequestBody for PasswordRequest<'_> {
    const EXPECTED: &'static str = "an object with a password";
}

/// The body, checked.
pub(in super::super) struct PasswordChange {
    pub(in super::super) new: NewPassword,
    pub(in super::super) current: Option<SecretText>,
}

/// A new password, or its hash.
pub(in super::super) enum NewPassword {
    Password(SecretText),
    Hash(PasswordHash),
}

/// Reads the body.
pub(in super::super) fn password(body: &[u8]) -> Result<PasswordChange, ApiError> {
    // An error about a string in place of the object would quote it.
    if !body.trim_ascii_start().starts_with(b"{") {
        return Err(ApiError::invalid("", FORM));
    }
    read::<PasswordRequest>(body)?.try_into()
}

impl TryFrom<PasswordRequest<'_>> for PasswordChange {
    type Error = ApiError;

    fn try_from(written: PasswordRequest<'_>) -> Result<Self, ApiError> {
        let new = match (written.password.0, written.password_hash.0) {
            (Some(password), None) => NewPassword::Password(new_password(&password)?),
            (None, Some(Secret(hash))) => {
                let wrong = |error: &dyn std::fmt::Display| ApiError::invalid("password_hash", error.to_string());
                NewPassword::Hash(PasswordHash::parse(&hash.0).map_err(|error| wrong(&error))?)
            }
            (Some(_), Some(_)) => return Err(ApiError::invalid("", FORM)),
            (None, None) => return Err(missing("password")),
        };
        // A password that is set already may be shorter than a new one must be.
        let current = written.current_password.0.map(|Secret(current)| SecretText::new(current.0));
        Ok(Self { new, current })
    }
}

fn new_password(Secret(written): &Secret<'_>) -> Result<SecretText, ApiError> {
    if (MIN_PASSWORD_BYTES..=MAX_PASSWORD_BYTES).contains(&written.0.len()) && !written.0.contains('\0') {
        return Ok(SecretText::new(&*written.0));
    }
    let message = format!("a password has {MIN_PASSWORD_BYTES} to {MAX_PASSWORD_BYTES} bytes, and no NUL among them");
    Err(ApiError::invalid("password", message))
}
