//! The arguments of `decide` and `explain`: one request, and what Tollgate is to know when it decides.

use std::path::PathBuf;
use std::str::FromStr;

use clap::Args;
use serde_json::{Map, Value};

use super::output::Format;
use crate::edge::clock::SystemClock;
use crate::gate::Clock;
use crate::model::{AuthMethod, EntityUid, Facts, Request, Timestamp, strict_json};

/// A request, and what is known.
#[derive(Debug, Args)]
pub(super) struct Question {
    /// Who asks, as a Cedar uid: User::"alice"
    #[arg(long, value_name = "UID")]
    principal: EntityUid,
    /// What they want to do, a bare name or a uid: chat
    #[arg(long, value_name = "ACTION")]
    action: String,
    /// With what, as a Cedar uid: Model::"openai-main/gpt-4o"
    #[arg(long, value_name = "UID")]
    resource: EntityUid,
    /// What the gateway tells of the request, as in POST /is_authorized: {"ip": "10.1.2.3"}
    #[arg(long, value_name = "JSON")]
    context: Option<Told>,
    /// What Tollgate itself is to know: {"now": …, "budget": …, "rate": …, "auth": …}
    #[arg(long, value_name = "JSON")]
    assume: Option<Assumed>,
    /// The bundle's directory
    #[arg(long, value_name = "DIR", env = "TOLLGATE_POLICIES", default_value = "policies", hide_env_values = true)]
    pub(super) policies: PathBuf,
    /// How the answer is written
    #[arg(long, value_enum, default_value_t = Format::Text)]
    pub(super) format: Format,
}

impl Question {
    /// The request that is asked.
    pub(super) fn request(&self) -> Request {
        let context = self.context.as_ref().map(|told| told.0.clone()).unwrap_or_default();
        Request::new(self.principal.clone(), self.action.as_str(), self.resource.clone()).with_context(context)
    }

    /// What is known: what was assumed, and for the rest a caller that no limit binds, now.
    pub(super) fn facts(&self) -> Facts {
        let free = Facts::at(SystemClock.now());
        self.assume.as_ref().map_or(free, |assumed| assumed.over(free))
    }
}

/// A JSON object.
#[derive(Debug, Clone)]
struct Told(Map<String, Value>);

impl FromStr for Told {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        object(text).map(Self)
    }
}

fn object(text: &str) -> Result<Map<String, Value>, String> {
    match strict_json::from_str(text) {
        Ok(Value::Object(members)) => Ok(members),
        Ok(_) => Err("it must be a JSON object, {…}".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

/// What `--assume` says; what it does not say is as it would be.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Assumed {
    now: Option<Timestamp>,
    auth: Option<AuthMethod>,
    used_percent: Option<i64>,
    remaining_micros: Option<i64>,
    remaining_requests: Option<i64>,
    remaining_tokens: Option<i64>,
}

impl Assumed {
    fn over(&self, mut facts: Facts) -> Facts {
        facts.now = self.now.unwrap_or(facts.now);
        facts.auth = self.auth.unwrap_or(facts.auth);
        facts.budget.used_percent = self.used_percent.unwrap_or(facts.budget.used_percent);
        facts.budget.remaining_micros = self.remaining_micros.unwrap_or(facts.budget.remaining_micros);
        facts.rate.remaining_requests = self.remaining_requests.unwrap_or(facts.rate.remaining_requests);
        facts.rate.remaining_tokens = self.remaining_tokens.unwrap_or(facts.rate.remaining_tokens);
        facts
    }
}

impl FromStr for Assumed {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut assumed = Self::default();
        for (name, value) in object(text)? {
            match name.as_str() {
                "now" => assumed.now = Some(instant(&value)?),
                "auth" => {
                    each(&value, "auth", &["method"], |_, value| {
                        assumed.auth = Some(method(value)?);
                        Ok(())
                    })?;
                }
                "budget" => each(&value, "budget", &["used_percent", "remaining_micros"], |name, value| {
                    let amount = amount(value, "budget", name)?;
                    if name == "used_percent" {
                        assumed.used_percent = Some(amount);
                    } else {
                        assumed.remaining_micros = Some(amount);
                    }
                    Ok(())
                })?,
                "rate" => each(&value, "rate", &["remaining_requests", "remaining_tokens"], |name, value| {
                    let amount = amount(value, "rate", name)?;
                    if name == "remaining_requests" {
                        assumed.remaining_requests = Some(amount);
                    } else {
                        assumed.remaining_tokens = Some(amount);
                    }
                    Ok(())
                })?,
                _ => return Err(format!("it has no `{name}`; there are `now`, `budget`, `rate` and `auth`")),
            }
        }
        Ok(assumed)
    }
}

/// Looks at each member of the object `value`, which may have those in `known`.
fn each(
    value: &Value,
    what: &str,
    known: &[&str],
    mut take: impl FnMut(&str, &Value) -> Result<(), String>,
) -> Result<(), String> {
    let members = value.as_object().ok_or_else(|| format!("`{what}` must be an object"))?;
    for (name, value) in members {
        if !known.contains(&name.as_str()) {
            let known = known.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(" and ");
            return Err(format!("`{what}` has no `{name}`; there is {known}"));
        }
        take(name, value)?;
    }
    Ok(())
}

fn instant(value: &Value) -> Result<Timestamp, String> {
    let instant = value.as_str().and_then(Timestamp::parse);
    instant.ok_or_else(|| "`now` must be an instant with its offset: \"2026-03-01T09:00:00Z\"".to_owned())
}

fn method(value: &Value) -> Result<AuthMethod, String> {
    let only = AuthMethod::default();
    let known = value.as_str() == Some(only.as_str());
    known.then_some(only).ok_or_else(|| format!("`auth.method` must be \"{}\" in this version", only.as_str()))
}

fn amount(value: &Value, what: &str, name: &str) -> Result<i64, String> {
    let number = value.as_i64().filter(|number| *number >= 0);
    number.ok_or_else(|| format!("`{what}.{name}` must be a whole number, 0 or more"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_assumed_is_known_and_the_rest_stays() {
        let free = Facts::at(Timestamp::from_millis(0));
        let text = r#"{"now": "1970-01-01T00:00:01Z", "budget": {"used_percent": 85}, "rate": {"remaining_tokens": 7},
            "auth": {"method": "asserted"}}"#;
        let known = text.parse::<Assumed>().unwrap().over(free);
        assert_eq!(known.now.as_millis(), 1000);
        assert_eq!((known.budget.used_percent, known.budget.remaining_micros), (85, i64::MAX));
        assert_eq!((known.rate.remaining_requests, known.rate.remaining_tokens), (i64::MAX, 7));
        assert_eq!("{}".parse::<Assumed>().unwrap().over(free), free);
    }

    #[test]
    fn what_is_not_known_cannot_be_assumed() {
        for bad in [
            "[]",
            "{",
            r#"{"budget": 1}"#,
            r#"{"budgets": {}}"#,
            r#"{"budget": {"percent": 1}}"#,
            r#"{"budget": {"used_percent": -1}}"#,
            r#"{"budget": {"used_percent": 1.5}}"#,
            r#"{"budget": {"used_percent": 1, "used_percent": 2}}"#,
            r#"{"rate": {"remaining_requests": "1"}}"#,
            r#"{"now": "2026-03-01"}"#,
            r#"{"now": 5}"#,
            r#"{"auth": {"method": "jwt"}}"#,
            r#"{"auth": "asserted"}"#,
        ] {
            assert!(bad.parse::<Assumed>().is_err(), "{bad} was taken");
        }
    }
}
