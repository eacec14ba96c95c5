//! Where a value comes from: the first claim that exists of those a mapping names, or what the configuration fixes.
//!
//! A claim that a mapping names is a text or a list of texts. Absent or null, it is not there, and the next is looked at;
//! anything else refuses the token, since what is left of it would mean less, or more, than its issuer said.

use serde_json::{Map, Value};
use smol_str::SmolStr;

use super::path::ClaimPath;
use crate::model::{Refusal, RefusalReason, check_name};

/// Most values of a list.
const MAX_VALUES: usize = 1_000;

/// Alternatives; the first that exists is taken.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sources(pub Vec<Source>);

/// One alternative.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A claim.
    Claim(ClaimSource),
    /// What the configuration says, whatever the token does.
    Fixed(Vec<SmolStr>),
}

/// A claim, and what becomes of its values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClaimSource {
    /// Where it stands.
    pub path: ClaimPath,
    /// What separates several values in one text.
    pub split: Option<Split>,
    /// Only values that begin so count.
    pub only_prefix: Option<SmolStr>,
    /// Only values that begin so count, and lose it.
    pub strip_prefix: Option<SmolStr>,
    /// What values stand for; those that it does not name do not count.
    pub map: Option<Vec<(SmolStr, SmolStr)>>,
}

/// What separates values in one text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Split {
    /// Commas; spaces around values do not count.
    Comma,
    /// Spaces.
    Space,
}

impl ClaimSource {
    /// A claim whose values are taken as they are.
    #[must_use]
    pub fn of(path: ClaimPath) -> Self {
        Self { path, split: None, only_prefix: None, strip_prefix: None, map: None }
    }

    /// The values; `None` where there is no such claim.
    fn values(&self, claims: &Map<String, Value>) -> Result<Option<Vec<SmolStr>>, Refusal> {
        let Some(value) = self.path.find(claims) else {
            return if is_elsewhere(&self.path, claims) { Err(elsewhere(&self.path)) } else { Ok(None) };
        };
        // Whose address it is has not been shown.
        if self.path.is("email") && claims.get("email_verified").is_some_and(|said| !is_true(said)) {
            return Ok(None);
        }
        let mut values = Vec::new();
        match value {
            Value::String(text) => self.add(text, &mut values)?,
            Value::Array(items) => {
                for item in items {
                    self.add(item.as_str().ok_or_else(|| no_text(&self.path))?, &mut values)?;
                }
            }
            _ => return Err(no_text(&self.path)),
        }
        Ok(Some(values))
    }

    fn add(&self, text: &str, values: &mut Vec<SmolStr>) -> Result<(), Refusal> {
        let parts: Vec<&str> = match self.split {
            None => vec![text],
            Some(Split::Comma) => text.split(',').map(str::trim).filter(|part| !part.is_empty()).collect(),
            Some(Split::Space) => text.split(' ').filter(|part| !part.is_empty()).collect(),
        };
        for part in parts {
            let Some(value) = self.changed(part) else { continue };
            if check_name(&value).is_err() || values.len() >= MAX_VALUES {
                return Err(malformed(format!("the token's claim `{}` holds what names nothing", self.path)));
            }
            if !values.contains(&value) {
                values.push(value);
            }
        }
        Ok(())
    }

    fn changed(&self, value: &str) -> Option<SmolStr> {
        if self.only_prefix.as_ref().is_some_and(|prefix| !value.starts_with(prefix.as_str())) {
            return None;
        }
        let value = match &self.strip_prefix {
            Some(prefix) => value.strip_prefix(prefix.as_str())?,
            None => value,
        };
        match &self.map {
            None => Some(value.into()),
            Some(map) => map.iter().find(|(known, _)| known == value).map(|(_, meant)| meant.clone()),
        }
    }
}

impl Sources {
    /// A claim of this name, as it is.
    #[must_use]
    pub fn claim(name: &str) -> Self {
        Self(vec![Source::Claim(ClaimSource::of(ClaimPath::of(name)))])
    }

    /// Every value; none where nothing exists.
    ///
    /// # Errors
    /// Where a claim is neither a text nor a list of texts.
    pub fn many(&self, claims: &Map<String, Value>) -> Result<Vec<SmolStr>, Refusal> {
        for source in &self.0 {
            match source {
                Source::Fixed(values) => return Ok(values.clone()),
                Source::Claim(claim) => {
                    if let Some(values) = claim.values(claims)? {
                        return Ok(values);
                    }
                }
            }
        }
        Ok(Vec::new())
    }

    /// The one value; `None` where nothing exists.
    ///
    /// # Errors
    /// As [`Sources::many`], and where there are several.
    pub fn one(&self, claims: &Map<String, Value>) -> Result<Option<SmolStr>, Refusal> {
        for source in &self.0 {
            let values = match source {
                Source::Fixed(values) => Some(values.clone()),
                Source::Claim(claim) => claim.values(claims)?,
            };
            match values.as_deref() {
                None | Some([]) => {}
                Some([value]) => return Ok(Some(value.clone())),
                Some(_) => return Err(malformed(several(source))),
            }
        }
        Ok(None)
    }
}

/// What a claim must say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// The claim.
    pub path: ClaimPath,
    /// One of these; with a `*` at its end, one that begins so.
    pub values: Vec<SmolStr>,
}

impl Wanted {
    /// Whether it does. Of a list, one item is enough.
    #[must_use]
    pub fn holds(&self, claims: &Map<String, Value>) -> bool {
        let is_one = |text: &str| {
            self.values.iter().any(|wanted| match wanted.strip_suffix('*') {
                Some(beginning) => text.starts_with(beginning) && text.len() > beginning.len(),
                None => wanted == text,
            })
        };
        match self.path.find(claims) {
            Some(Value::String(text)) => is_one(text),
            Some(Value::Bool(said)) => is_one(if *said { "true" } else { "false" }),
            Some(Value::Array(items)) => items.iter().filter_map(Value::as_str).any(is_one),
            _ => false,
        }
    }
}

fn is_true(value: &Value) -> bool {
    // Some issuers write it as a text.
    value == &Value::Bool(true) || value == "true"
}

/// Whether the claim is left out and to be asked for elsewhere (OpenID Connect Core, 5.6.2), as Entra ID does with many
/// groups.
fn is_elsewhere(path: &ClaimPath, claims: &Map<String, Value>) -> bool {
    let named = claims.get("_claim_names").and_then(Value::as_object);
    named.is_some_and(|names| names.contains_key(path.root())) && !claims.contains_key(path.root())
}

fn several(source: &Source) -> String {
    match source {
        Source::Claim(claim) => format!("the token's claim `{}` says several where one is wanted", claim.path),
        Source::Fixed(_) => "several values are configured where one is wanted".to_owned(),
    }
}

fn elsewhere(path: &ClaimPath) -> Refusal {
    malformed(format!(
        "the token leaves out its claim `{path}`, which has to be asked for elsewhere; have its issuer send fewer groups"
    ))
}

fn no_text(path: &ClaimPath) -> Refusal {
    malformed(format!("the token's claim `{path}` is neither a text nor a list of texts"))
}

fn malformed(message: String) -> Refusal {
    Refusal::new(RefusalReason::Malformed, message)
}
