//! The types of request bodies. A type with derived `Deserialize` holds a body as it was written; `TryFrom` makes the
//! checked value, or an error that names the wrong member. The types also derive `JsonSchema`, from which `/openapi.json`
//! is made: their comments are its descriptions.

mod json;

mod amounts;
mod authorize;
mod cedar_agent;
mod credential;
mod keys;
mod passwords;
mod reload;
pub(super) mod schema;
mod spending;
mod tokens;
mod uid;
mod validate;

use super::errors::ApiError;

pub(super) use authorize::{batch, question};
pub(super) use cedar_agent::cedar_agent;
pub(super) use keys::{KeyMembers, change_key, new_key, revoke, rotate};
pub(super) use passwords::{NewPassword, PasswordChange, password};
pub(super) use reload::reload;
pub(super) use spending::{UsageBody, extend, release, settle, usage};
pub(super) use tokens::{Grant, token_of_form, token_of_json};
pub(super) use validate::{Delegated, validate};

/// The error for a member that is required and absent.
pub(super) fn missing(name: &str) -> ApiError {
    ApiError::invalid(name, format!("`{name}` is missing"))
}

#[cfg(test)]
mod tests {
    use super::super::options::Silence;
    use super::*;

    const P: &str = r#""principal": "User::\"alice\"", "action": "chat", "resource": "Model::\"a/b\"""#;

    #[test]
    fn errors_name_the_member_and_what_is_wrong_with_it() {
        for (more, param, message) in [
            (r#""acton": 1"#, "acton", "no member is called `acton`; did you mean `action`?"),
            (r#""action": "x""#, "action", "the member `action` stands twice"),
            (r#""reserve": {"usd": "1", "usd": "1"}"#, "reserve.usd", "the member `usd` stands twice"),
            (r#""reserve": {"usd": "x"}"#, "reserve.usd", "`x` is not"),
            (r#""reserve": {"images": -1}"#, "reserve.images", "it must not be negative"),
            (r#""reserve": {"images": 1.5}"#, "reserve.images", "invalid type: floating point `1.5`, expected a whole"),
            (r#""explain": null"#, "explain", "invalid type: null, expected a boolean at line 1 column"),
            (r#""candidates": [{"type": "Model"}]"#, "candidates[0].id", "`id` is missing"),
            (r#""candidates": [{"type": "Model", "id": "x", "x": 1}]"#, "candidates[0].x", "no member is called `x`"),
            (r#""context": {"metadata": {"a": 1, "a": 1}}"#, "context", "the member `a` stands twice at line 1 column"),
            (r#""credential": {"bearer": 7}"#, "credential", "`credential` is one of"),
            (r#""x": 1"#, "x", "no member is called `x`; the members are principal, credential, action, "),
        ] {
            let body = format!("{{{P}, {more}}}");
            let error = question(body.as_bytes(), Silence::Checks).unwrap_err();
            assert_eq!(error.param, param, "{more}: {error:?}");
            assert!(error.message.starts_with(message), "{more}: {error:?}");
            let batch = batch(format!("{{\"requests\": [{{{P}}}, {body}]}}").as_bytes(), 2, Silence::Checks);
            assert_eq!(batch.unwrap_err().param, format!("requests[1].{param}"));
        }
    }

    /// Types with derived `Deserialize` also take a list of the values of their members.
    #[test]
    fn a_list_of_values_is_no_object() {
        let list = r#"["User::\"alice\"", {"bearer": "x"}, "chat", "Model::\"a/b\"", [], {}, false, false, "k", 60]"#;
        assert_eq!(question(list.as_bytes(), Silence::Checks).unwrap_err().param, "");
        for (member, value) in [
            ("principal", r#"["User", "alice"]"#),
            ("reserve", r#"[1, 1, 1, 1, "1", 60]"#),
            ("credential", r#"["x"]"#),
            ("credential", r#"{"basic": ["alice", "x"]}"#),
        ] {
            let body = format!(r#"{{"action": "chat", "resource": "Model::\"a/b\"", "{member}": {value}}}"#);
            assert_eq!(question(body.as_bytes(), Silence::Checks).unwrap_err().param, member, "{value}");
        }
        let body = format!(r#"{{{P}, "idempotency_key": "k", "usage": [1, 1, 1, 0, 0, 0, 1, "1"]}}"#);
        assert_eq!(usage(body.as_bytes(), 1).map(|_| ()).unwrap_err().param, "usage");
        let body = r#"{"reservation": "r-00000000000000000000000000000001", "usage": [1, 1, 1, 0, 0, 0, 1, "1"]}"#;
        assert_eq!(settle(body.as_bytes()).map(|_| ()).unwrap_err().param, "usage");
        let body = r#"{"paths": [["/v1", ["GET"]]]}"#;
        assert_eq!(new_key(body.as_bytes()).unwrap_err().param, "paths[0]");
        let body = r#"{"api_key": "x", "request": ["/a", "GET", "10.0.0.1", {}, {}]}"#;
        assert_eq!(validate(body.as_bytes(), false).map(|_| ()).unwrap_err().param, "request");
    }
}
