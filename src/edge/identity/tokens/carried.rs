//! What a token of Tollgate's own says of whom it is for. Of a key it says which, and the key is looked up each time; so a
//! token never gives more than its credential has.

use serde::{Deserialize, Serialize};
use smol_str::SmolStr;

use crate::model::{AuthMethod, EntityUid, Identity, Said};

/// What keys are called.
const API_KEY: &str = "ApiKey";

/// What was exchanged, as far as it can be looked up again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum By {
    /// A key, which says everything else itself.
    Key,
    /// A password.
    Password,
    /// What cannot be looked up.
    #[default]
    Other,
}

impl By {
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
    fn is_other(&self) -> bool {
        *self == Self::Other
    }
}

/// Whom a token is for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Carried {
    /// `User::"alice"`, or the key.
    pub(super) principal: String,
    /// How it was proved, as rules see it.
    method: SmolStr,
    /// By what it was proved.
    #[serde(default, skip_serializing_if = "By::is_other")]
    pub(super) by: By,
    /// What was kept of the credential then: a digest of a hash that has a salt, so that whoever reads it can check no
    /// guess.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) mark: Option<SmolStr>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    replaces: bool,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    teams: Vec<SmolStr>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    orgs: Vec<SmolStr>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    roles: Vec<SmolStr>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    team_roles: Vec<SmolStr>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    tags: Vec<SmolStr>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    email: Option<SmolStr>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    external_id: Option<SmolStr>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    metadata: Vec<(SmolStr, SmolStr)>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    payer: Option<SmolStr>,
}

impl Carried {
    /// What of `identity` a token carries; `None` where it is narrowed in a way that a token cannot say.
    pub(super) fn of(identity: &Identity) -> Option<Self> {
        // The rest says how it was proved, and until when.
        let Identity { principal, owner: _, method, said, metadata, payer, narrowed, limits, mark, .. } = identity;
        let Said { replaces, teams, orgs, roles, team_roles, tags, email, external_id } = said;
        let mark = mark.as_ref().map(|mark| mark.text().into());
        if principal.kind() == API_KEY {
            return Some(Self { principal: principal.to_string(), by: By::Key, mark, ..Self::empty(*method) });
        }
        if narrowed.is_some() || !limits.is_empty() {
            return None;
        }
        Some(Self {
            principal: principal.to_string(),
            method: method.as_str().into(),
            by: if mark.is_some() && *method == AuthMethod::Basic { By::Password } else { By::Other },
            mark,
            replaces: *replaces,
            teams: teams.to_vec(),
            orgs: orgs.to_vec(),
            roles: roles.to_vec(),
            team_roles: team_roles.to_vec(),
            tags: tags.to_vec(),
            email: email.clone(),
            external_id: external_id.clone(),
            metadata: metadata.to_vec(),
            payer: payer.clone(),
        })
    }

    fn empty(method: AuthMethod) -> Self {
        Self {
            principal: String::new(),
            method: method.as_str().into(),
            by: By::Other,
            mark: None,
            replaces: false,
            teams: Vec::new(),
            orgs: Vec::new(),
            roles: Vec::new(),
            team_roles: Vec::new(),
            tags: Vec::new(),
            email: None,
            external_id: None,
            metadata: Vec::new(),
            payer: None,
        }
    }

    /// Whom that is, where it is no key.
    pub(super) fn identity(self) -> Option<Identity> {
        let principal: EntityUid = self.principal.parse().ok()?;
        let method = AuthMethod::of(&self.method)?;
        let said = Said {
            replaces: self.replaces,
            teams: self.teams.into(),
            orgs: self.orgs.into(),
            roles: self.roles.into(),
            team_roles: self.team_roles.into(),
            tags: self.tags.into(),
            email: self.email,
            external_id: self.external_id,
        };
        let (metadata, payer) = (self.metadata.into(), self.payer);
        Some(Identity { said, metadata, payer, ..Identity::new(principal, method) })
    }
}
