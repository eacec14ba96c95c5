//! Where a value comes from: the first claim that exists of those a mapping names, or what the configuration fixes.
//!
//! A claim in a mapping is a text or a list of texts. A claim that is absent or null is skipped, and the next source is
//! used. Any other type refuses the token, since ignoring a part of it would change its meaning. A text that cannot be
//! a name (blank, too long, or with invisible characters) is skipped in a list such as teams: no rule can refer to it,
//! and the user, who did not choose it, must not be locked out by it.

use serde_json::{Map, Value};
use smol_str::SmolStr;

use super::path::ClaimPath;
use crate::model::{Refusal, RefusalReason, check_name};

/// Most values of a list.
const MAX_VALUES: usize = 1_000;

/// Alternatives; the first that exists is taken.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sources(pub Vec<Source>);

/// How to handle a text that cannot be a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Unnameable {
    /// It is passed over.
    PassedOver,
    /// It refuses the token, unless it is blank.
    Refused,
}

/// What shows that an email address is its owner's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EmailProof {
    /// The token vouches for the address: `email_verified` beside it is true.
    Verified,
    /// The operator vouches for the issuer, whose tokens have no `email_verified`. A token with `email_verified: false`
    /// is still believed.
    Assumed,
}

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
    /// Whether values are folded first, before anything else is done with them.
    pub fold: Option<Fold>,
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

/// How values that differ only by case become the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fold {
    /// ASCII letters in lower case. Others stay as they are: several letters of Unicode have an ASCII letter as their lower
    /// case, so that one person could take another's name.
    Lower,
}

impl ClaimSource {
    /// A claim whose values are taken as they are.
    #[must_use]
    pub fn of(path: ClaimPath) -> Self {
        Self { path, split: None, fold: None, only_prefix: None, strip_prefix: None, map: None }
    }

    /// The values; `None` where there is no such claim.
    fn values(&self, claims: &Map<String, Value>, unnameable: Unnameable) -> Result<Option<Vec<SmolStr>>, Refusal> {
        if is_left_out(&self.path, claims) {
            return Err(left_out(&self.path));
        }
        let Some(value) = self.path.find(claims) else { return Ok(None) };
        // Whose address it is has not been shown.
        if self.verified(claims) == Some(false) {
            return Ok(None);
        }
        let mut values = Vec::new();
        match value {
            Value::String(text) => self.add(text, unnameable, &mut values)?,
            Value::Array(items) => {
                for item in items {
                    self.add(item.as_str().ok_or_else(|| no_text(&self.path))?, unnameable, &mut values)?;
                }
            }
            _ => return Err(no_text(&self.path)),
        }
        Ok(Some(values))
    }

    /// Whether the token marks the address as verified; `None` if it has no such mark.
    fn verified(&self, claims: &Map<String, Value>) -> Option<bool> {
        if !self.path.ends_with("email") {
            return None;
        }
        self.path.beside("email_verified", claims).map(is_true)
    }

    fn add(&self, text: &str, unnameable: Unnameable, values: &mut Vec<SmolStr>) -> Result<(), Refusal> {
        let parts: Vec<&str> = match self.split {
            None => vec![text],
            Some(Split::Comma) => text.split(',').map(str::trim).filter(|part| !part.is_empty()).collect(),
            Some(Split::Space) => text.split(' ').filter(|part| !part.is_empty()).collect(),
        };
        for part in parts {
            let Some(value) = self.changed(part).filter(|value| !value.is_empty()) else { continue };
            match check_name(&value) {
                Ok(()) => {}
                Err(_) if unnameable == Unnameable::PassedOver => continue,
                Err(error) => return Err(malformed(format!("the token's claim `{}`: {error}", self.path))),
            }
            if values.contains(&value) {
                continue;
            }
            if values.len() >= MAX_VALUES {
                return Err(malformed(format!("the token's claim `{}` has more than {MAX_VALUES} values", self.path)));
            }
            values.push(value);
        }
        Ok(())
    }

    fn changed(&self, value: &str) -> Option<SmolStr> {
        let folded = self.fold.map(|Fold::Lower| value.to_ascii_lowercase());
        let value = folded.as_deref().unwrap_or(value);
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
                    if let Some(values) = claim.values(claims, Unnameable::PassedOver)? {
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
    /// Returns the errors of [`Sources::many`], and one for several values or a value that cannot be a name.
    pub fn one(&self, claims: &Map<String, Value>) -> Result<Option<SmolStr>, Refusal> {
        Ok(self.first(claims, Unnameable::Refused)?.map(|(value, _)| value))
    }

    /// The email address; `None` if it is absent or cannot be a name.
    ///
    /// # Errors
    /// Returns the errors of [`Sources::many`], and one for several values.
    pub fn email(&self, claims: &Map<String, Value>) -> Result<Option<SmolStr>, Refusal> {
        Ok(self.first(claims, Unnameable::PassedOver)?.map(|(value, _)| value))
    }

    /// The email address, where `proof` shows that it is its owner's.
    ///
    /// # Errors
    /// Returns the errors of [`Sources::email`].
    pub fn proved_email(&self, claims: &Map<String, Value>, proof: EmailProof) -> Result<Option<SmolStr>, Refusal> {
        let first = self.first(claims, Unnameable::PassedOver)?;
        Ok(first.and_then(|(value, source)| match source {
            // An address that is the same for every token identifies no user.
            Source::Fixed(_) => None,
            Source::Claim(_) if proof == EmailProof::Assumed => Some(value),
            Source::Claim(claim) => (claim.verified(claims) == Some(true)).then_some(value),
        }))
    }

    /// The first value that exists, and where it comes from.
    fn first(
        &self,
        claims: &Map<String, Value>,
        unnameable: Unnameable,
    ) -> Result<Option<(SmolStr, &Source)>, Refusal> {
        for source in &self.0 {
            let values = match source {
                Source::Fixed(values) => Some(values.clone()),
                Source::Claim(claim) => claim.values(claims, unnameable)?,
            };
            match values.as_deref() {
                None | Some([]) => {}
                Some([value]) => return Ok(Some((value.clone(), source))),
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
    /// One of these; with a `*` at its end one that begins so, with a `*` at its beginning one that ends so.
    pub values: Vec<SmolStr>,
}

impl Wanted {
    /// Whether it does. Of a list, one item is enough.
    #[must_use]
    pub fn holds(&self, claims: &Map<String, Value>) -> bool {
        let is_one = |text: &str| self.values.iter().any(|wanted| fits(wanted, text));
        match self.path.find(claims) {
            Some(Value::String(text)) => is_one(text),
            Some(Value::Bool(said)) => is_one(if *said { "true" } else { "false" }),
            Some(Value::Array(items)) => items.iter().filter_map(Value::as_str).any(is_one),
            _ => false,
        }
    }
}

/// Whether `text` matches `wanted`. A `*` stands for at least one character.
fn fits(wanted: &str, text: &str) -> bool {
    match (wanted.strip_prefix('*'), wanted.strip_suffix('*')) {
        (None, None) => wanted == text,
        (None, Some(beginning)) => text.len() > beginning.len() && text.starts_with(beginning),
        (Some(ending), None) => text.len() > ending.len() && text.ends_with(ending),
        // The configuration has none with two.
        (Some(_), Some(_)) => false,
    }
}

fn is_true(value: &Value) -> bool {
    // Some issuers write it as a text.
    value.as_bool().unwrap_or_else(|| value.as_str().is_some_and(|text| text.eq_ignore_ascii_case("true")))
}

impl Wanted {
    /// Returns an error if the token leaves the claim out, so that its value is unknown.
    ///
    /// # Errors
    /// Where that is so.
    pub fn check_told(&self, claims: &Map<String, Value>) -> Result<(), Refusal> {
        if is_left_out(&self.path, claims) { Err(left_out(&self.path)) } else { Ok(()) }
    }
}

/// Whether the token leaves the claim out because it would be too long. Its value is then unknown, and not empty.
/// `_claim_names` points to the place where it can be requested (OpenID Connect Core, 5.6.2); in the implicit flow
/// Entra ID sends `hasgroups` instead of `groups`.
fn is_left_out(path: &ClaimPath, claims: &Map<String, Value>) -> bool {
    let named = claims.get("_claim_names").and_then(Value::as_object);
    let has_groups = || claims.get("hasgroups").is_some_and(is_true);
    named.is_some_and(|names| names.contains_key(path.root())) || (path.root() == "groups" && has_groups())
}

fn several(source: &Source) -> String {
    match source {
        Source::Claim(claim) => format!("the token's claim `{}` says several where one is wanted", claim.path),
        Source::Fixed(_) => "several values are configured where one is wanted".to_owned(),
    }
}

fn left_out(path: &ClaimPath) -> Refusal {
    malformed(format!(
        "the token leaves out its claim `{path}`, which has too many values; have \
         its issuer put fewer groups into tokens, such as those assigned to this application"
    ))
}

fn no_text(path: &ClaimPath) -> Refusal {
    malformed(format!("the token's claim `{path}` is neither a text nor a list of texts"))
}

fn malformed(message: String) -> Refusal {
    Refusal::new(RefusalReason::Malformed, message)
}
