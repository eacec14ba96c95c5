//! What `--assume` says: what Tollgate itself is to know when it decides.

use std::str::FromStr;

use serde_json::Value;
use smol_str::SmolStr;

use super::question::object;
use crate::gate::Assumptions;
use crate::model::{Amount, AuthMethod, Facts, LimitFacts, Timestamp};
use crate::policy::Snapshot;
use crate::policy::problem::nearest;

/// What is assumed; what it does not say is as it would be.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Assumed {
    now: Option<Timestamp>,
    auth: Option<AuthMethod>,
    used_percent: Option<i64>,
    remaining_micros: Option<i64>,
    remaining_requests: Option<i64>,
    remaining_tokens: Option<i64>,
    /// Limits that apply, with their members.
    limits: Vec<(SmolStr, Vec<(String, i64)>)>,
}

impl Assumed {
    /// The assumptions for the limits of `snapshot`, together with `facts`.
    ///
    /// # Errors
    /// A limit that the bundle does not have, or that has no such member.
    pub(super) fn over(&self, mut facts: Facts, snapshot: Option<&Snapshot>) -> Result<Assumptions, String> {
        facts.now = self.now.unwrap_or(facts.now);
        facts.auth = self.auth.unwrap_or(facts.auth);
        let now = facts.now;
        let limits = self.limits.iter().map(|(id, said)| Ok((id.clone(), limit(id, said, now, snapshot)?)));
        Ok(Assumptions {
            facts,
            used_percent: self.used_percent,
            remaining_micros: self.remaining_micros,
            remaining_requests: self.remaining_requests,
            remaining_tokens: self.remaining_tokens,
            limits: limits.collect::<Result<_, String>>()?,
        })
    }
}

/// One limit, of which nothing is used but what is said.
fn limit(id: &str, said: &[(String, i64)], now: Timestamp, snapshot: Option<&Snapshot>) -> Result<LimitFacts, String> {
    let bound = snapshot.and_then(|snapshot| snapshot.limits().get(id)).ok_or_else(|| {
        let known = snapshot.map_or(&[] as &[_], |snapshot| snapshot.limits().all());
        let near = nearest(id, known.iter().map(|bound| bound.limit.id.as_str()));
        let near = near.map(|near| format!("; did you mean `{near}`?")).unwrap_or_default();
        format!("the bundle has no limit `{id}`{near}")
    })?;
    let unit = bound.limit.unit();
    let mut facts = LimitFacts::of(unit, bound.limit.cap_at(now), Amount::ZERO, Amount::ZERO);
    let names = LimitFacts::names(unit);
    for (name, number) in said {
        let slots = [&mut facts.limit, &mut facts.used, &mut facts.held, &mut facts.remaining, &mut facts.used_percent];
        let slot = names.iter().zip(slots).find(|(known, _)| *known == name);
        let (_, slot) = slot.ok_or_else(|| {
            let known = names.map(|name| format!("`{name}`")).join(", ");
            format!("`limits[\"{id}\"]` has no `{name}`; there are {known}")
        })?;
        *slot = *number;
    }
    let is_said = |position: usize| said.iter().any(|(name, _)| names.get(position) == Some(&name.as_str()));
    let [_, used_is_said, _, remaining_is_said, percent_is_said] = [0, 1, 2, 3, 4].map(is_said);
    // Members that are not given follow from those that are, so that a limit is full in whatever way that is stated.
    if percent_is_said && !used_is_said && !remaining_is_said {
        let used = i128::from(facts.limit) * i128::from(facts.used_percent) / 100;
        facts.used = i64::try_from(used).unwrap_or(i64::MAX);
        facts.remaining = facts.limit.saturating_sub(facts.used).max(0);
        return Ok(facts);
    }
    if remaining_is_said && !used_is_said {
        facts.used = facts.limit.saturating_sub(facts.held).saturating_sub(facts.remaining).max(0);
    }
    let taken = facts.used.saturating_add(facts.held);
    if !remaining_is_said {
        facts.remaining = facts.limit.saturating_sub(taken).max(0);
    }
    if !percent_is_said {
        let amount = |number: i64| u64::try_from(number).ok().and_then(Amount::new).unwrap_or(Amount::ZERO);
        facts.used_percent = amount(taken).percent_of(amount(facts.limit));
    }
    Ok(facts)
}

impl FromStr for Assumed {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut assumed = Self::default();
        for (name, value) in object(text)? {
            assumed.member(&name, &value)?;
        }
        Ok(assumed)
    }
}

impl Assumed {
    fn member(&mut self, name: &str, value: &Value) -> Result<(), String> {
        match name {
            "now" => self.now = Some(instant(value)?),
            "auth" => {
                each(value, "auth", &["method"], |_, value| {
                    self.auth = Some(method(value)?);
                    Ok(())
                })?;
            }
            "budget" => each(value, "budget", &["used_percent", "remaining_micros"], |name, value| {
                let amount = amount(value, "budget", name)?;
                if name == "used_percent" {
                    self.used_percent = Some(amount);
                } else {
                    self.remaining_micros = Some(amount);
                }
                Ok(())
            })?,
            "rate" => each(value, "rate", &["remaining_requests", "remaining_tokens"], |name, value| {
                let amount = amount(value, "rate", name)?;
                if name == "remaining_requests" {
                    self.remaining_requests = Some(amount);
                } else {
                    self.remaining_tokens = Some(amount);
                }
                Ok(())
            })?,
            "limits" => {
                let limits = value.as_object().ok_or("`limits` must be an object of limits by id")?;
                for (id, members) in limits {
                    let what = format!("limits[\"{id}\"]");
                    let members = members.as_object().ok_or_else(|| format!("`{what}` must be an object"))?;
                    let members = members.iter().map(|(name, value)| Ok((name.clone(), amount(value, &what, name)?)));
                    self.limits.push((id.as_str().into(), members.collect::<Result<_, String>>()?));
                }
            }
            _ => return Err(format!("it has no `{name}`; there are `now`, `budget`, `rate`, `limits` and `auth`")),
        }
        Ok(())
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
    use crate::policy::{Bundle, SourceFile, load};

    #[test]
    fn what_is_assumed_is_known_and_the_rest_stays() {
        let free = Facts::at(Timestamp::from_millis(0));
        let text = r#"{"now": "1970-01-01T00:00:01Z", "budget": {"used_percent": 85}, "rate": {"remaining_tokens": 7},
            "auth": {"method": "asserted"}}"#;
        let known = text.parse::<Assumed>().unwrap().over(free.clone(), None).unwrap();
        assert_eq!(known.facts.now.as_millis(), 1000);
        assert_eq!((known.used_percent, known.remaining_micros), (Some(85), None));
        assert_eq!((known.remaining_requests, known.remaining_tokens), (None, Some(7)));
        assert_eq!("{}".parse::<Assumed>().unwrap().over(free.clone(), None), Ok(Assumptions::none(free)));
    }

    /// Whatever member says how full a limit is, the others follow.
    #[test]
    fn a_limit_is_full_however_that_is_said() {
        let text = "users: [{ id: a }]\nauthz_rules: [{ users: [a], models: \"*\" }]\nlimits: [{ id: m, users: [a], budget: { usd: 2, every: day } }, { id: r, users: [a], rate: { \
                    requests: 4, every: day } }]\n";
        let bundle = Bundle::new(vec![SourceFile::new("a.yaml", text.as_bytes()).unwrap()]);
        let snapshot = load(&bundle).unwrap().snapshot;
        let assumed = |id: &str, text: &str| {
            let text = format!("{{\"limits\": {{\"{id}\": {{{text}}}}}}}");
            let over = text.parse::<Assumed>().unwrap().over(Facts::at(Timestamp::from_millis(0)), Some(&snapshot));
            let facts = over.unwrap().limits[0].1;
            (facts.used, facts.held, facts.remaining, facts.used_percent)
        };
        assert_eq!(assumed("r", r#""used": 4"#), (4, 0, 0, 100));
        assert_eq!(assumed("r", r#""used": 1, "held": 3"#), (1, 3, 0, 100));
        assert_eq!(assumed("r", r#""held": 1"#), (0, 1, 3, 25));
        assert_eq!(assumed("r", r#""remaining": 1"#), (3, 0, 1, 75));
        assert_eq!(assumed("r", r#""limit": 0"#), (0, 0, 0, 100));
        assert_eq!(assumed("r", r#""used": 1, "used_percent": 90"#), (1, 0, 3, 90));
        assert_eq!(assumed("m", r#""used_micros": 2000000"#), (2_000_000, 0, 0, 100));
        assert_eq!(assumed("m", r#""used_micros": 1999999"#), (1_999_999, 0, 1, 99));
        assert_eq!(assumed("m", r#""used_percent": 50"#), (1_000_000, 0, 1_000_000, 50));
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
            r#"{"limits": []}"#,
            r#"{"limits": {"a": 1}}"#,
            r#"{"limits": {"a": {"used_percent": "1"}}}"#,
        ] {
            assert!(bad.parse::<Assumed>().is_err(), "{bad} was taken");
        }
    }
}
