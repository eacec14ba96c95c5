//! Credentials in a question's `credential`.
//!
//! What is wrong with one is told without showing any of it.

use serde::de::MapAccess;
use smol_str::SmolStr;

use super::errors::ApiError;
use super::grammar::{Members, Trail, missing, object, text};
use crate::edge::identity::after_bearer;
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
            (Some(token), None, None) => Ok(Credential::Bearer(bare(token)?)),
            (None, Some(key), None) => Ok(Credential::ApiKey(bare(key)?)),
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

/// Without the `Bearer` of a gateway that hands on a whole `Authorization`.
fn bare(secret: SecretText) -> Result<SecretText, ApiError> {
    match after_bearer(secret.expose()) {
        "" => Err(missing("bearer")),
        bare if bare.len() == secret.expose().len() => Ok(secret),
        bare => Ok(SecretText::new(bare)),
    }
}

fn secret<'de, A: MapAccess<'de>>(trail: &Trail, map: &mut A, least: usize) -> Result<SecretText, A::Error> {
    let secret: SmolStr = map.next_value_seed(text(trail, "a text"))?;
    if (least..=MAX_BYTES).contains(&secret.len()) {
        return Ok(SecretText::new(secret));
    }
    Err(trail.fail(missing("bearer")))
}
