//! The types of what requests contain. A type with derived `Deserialize` holds what was written; `TryFrom` makes the
//! checked value of it, and says which member is wrong. The types also derive `JsonSchema`, from which `/openapi.json`
//! is made: their comments are its descriptions.

mod json;

mod amounts;
mod authorize;
mod cedar_agent;
mod credential;
mod keys;
mod passwords;
mod question;
mod reload;
mod spending;
mod tokens;
mod uid;
mod validate;

use super::errors::ApiError;

pub(super) use authorize::{batch, question};
pub(super) use cedar_agent::cedar_agent;
pub(super) use keys::{KeyMembers, change_key, new_key, revoke, rotate};
pub(super) use passwords::{NewPassword, PasswordChange, password};
pub(super) use question::{Asked, Asking, Parts, Question, Silence, What};
pub(super) use reload::reload;
pub(super) use spending::{UsageBody, extend, release, settle, usage};
pub(super) use tokens::{Grant, token_of_form, token_of_json};
pub(super) use validate::{Delegated, validate};

/// The error for a member that is required and absent.
pub(super) fn missing(name: &str) -> ApiError {
    ApiError::invalid(name, format!("`{name}` is missing"))
}
