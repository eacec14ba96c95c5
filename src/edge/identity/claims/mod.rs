//! From what an issuer says to whom rules see: claims become a principal, its teams, orgs, roles, tags and metadata.
//!
//! Two issuers may use the same name for two people, and a token may try to name another person. Therefore a subject
//! always belongs to its issuer, a claim can never name the subject of another issuer, and no claim gives a role of
//! Tollgate's own. A person whom the bundle declares must also remain that person: under another, undeclared id,
//! `disabled` would not apply to her, and she would have her budget twice. Therefore the ids by which the bundle knows
//! people are looked up before a claim names an id.

mod path;
mod sources;

use serde_json::{Map, Value};
use smol_str::{SmolStr, format_smolstr};

pub use path::{ClaimPath, PathError};
pub use sources::{ClaimSource, EmailProof, Fold, Source, Sources, Split, Wanted};

use crate::gate::Described;
use crate::model::{
    AuthMethod, EntityUid, Identity, RESERVED_ROLE_PREFIX, Refusal, RefusalReason, Said, Timestamp, check_name,
};
use crate::policy::Snapshot;
use crate::policy::entities::{EntityIndex, External, Kind};

/// Between an issuer and its subject. No issuer has it in its name, and no claim may say it in an id.
const SEPARATOR: char = '|';

/// An id that a claim finds.
fn checked_id(id: SmolStr, setting: &str) -> Result<SmolStr, Refusal> {
    let untrusted = |message: String| Refusal::new(RefusalReason::Untrusted, message);
    if id.contains(SEPARATOR) {
        return Err(untrusted(format!(
            "the id that `{setting}` finds in the token has a `{SEPARATOR}` in it, which stands between an issuer and its \
             subject; without `{setting}` the principal is `<issuer>{SEPARATOR}<sub>`, or the declared one \
             with this `external_id`"
        )));
    }
    if id.starts_with(RESERVED_ROLE_PREFIX) {
        return Err(untrusted(format!("the id that `{setting}` finds in the token is one of Tollgate's own")));
    }
    Ok(id)
}

fn nobody_known() -> Refusal {
    Refusal::new(RefusalReason::UnknownPrincipal, "the principal of the token is not allowed here")
}

/// Whether it is a team and a role in it.
fn is_team_role(text: &str) -> bool {
    text.rsplit_once(':').is_some_and(|(team, role)| !team.is_empty() && !role.is_empty())
}

/// How claims of an issuer are read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mapping {
    /// When a token is a service's.
    pub service_when: ServiceWhen,
    /// The id of a user, where a claim names it.
    pub user: Sources,
    /// The id of a service, where a claim names it.
    pub service: Sources,
    /// The id in the issuer's own directory, by which the bundle may know somebody.
    pub external_id: Sources,
    /// How a token is linked to a user or service of the bundle, before a claim names an id.
    pub link: Link,
    /// Whether an `external_id` of the bundle without an issuer is this issuer's.
    pub directory: bool,
    /// The issuers that this server knows. An `external_id` that begins with one of them and `|` is that issuer's, also
    /// where it could be read as an id without an issuer.
    pub known_issuers: Vec<SmolStr>,
    /// Teams.
    pub teams: Sources,
    /// Orgs.
    pub orgs: Sources,
    /// Roles.
    pub roles: Sources,
    /// Roles in teams, as `team:role`; they count in teams that the principal is in.
    pub team_roles: Sources,
    /// Tags.
    pub tags: Sources,
    /// The email address.
    pub email: Sources,
    /// What becomes `context.metadata`.
    pub metadata: Vec<(SmolStr, Sources)>,
    /// Headers of the request that become `context.metadata` too, under their own names; in small letters.
    pub headers: Vec<SmolStr>,
    /// Whether teams and orgs replace those of the bundle, or join them.
    pub replaces: bool,
    /// Whether those may ask whom the bundle does not know.
    pub allow_unknown: bool,
}

/// How a token is linked to a user or service of the bundle.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Link {
    /// By its `external_id` alone.
    ExternalId {
        /// Whether the configuration sets it explicitly, so that no warning is needed.
        chosen: bool,
    },
    /// By its `external_id`, else by its email address where that is proved.
    Email(EmailProof),
}

/// When a token is a service's, not a user's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServiceWhen {
    /// Never.
    Never,
    /// Always.
    Always,
    /// When all of these hold.
    All(Vec<Wanted>),
}

impl Default for Mapping {
    fn default() -> Self {
        Self {
            service_when: ServiceWhen::Never,
            user: Sources::default(),
            service: Sources::default(),
            external_id: Sources::claim("sub"),
            link: Link::ExternalId { chosen: false },
            directory: false,
            known_issuers: Vec::new(),
            teams: Sources::default(),
            orgs: Sources::default(),
            roles: Sources::default(),
            team_roles: Sources::default(),
            tags: Sources::default(),
            email: Sources::claim("email"),
            metadata: Vec::new(),
            headers: Vec::new(),
            replaces: false,
            allow_unknown: true,
        }
    }
}

/// What an issuer proved.
#[derive(Debug, Clone, Copy)]
pub struct Proof<'a> {
    /// Who says so.
    pub issuer: &'a str,
    /// Of whom.
    pub subject: &'a str,
    /// And what.
    pub claims: &'a Map<String, Value>,
    /// How it was proved.
    pub method: AuthMethod,
    /// Until when.
    pub expires_at: Timestamp,
}

impl Mapping {
    /// Who that is.
    ///
    /// # Errors
    /// Where a claim is not as the mapping wants it, or nobody is meant who may ask.
    pub fn identity(&self, proof: &Proof<'_>, snapshot: &Snapshot) -> Result<Identity, Refusal> {
        let claims = proof.claims;
        let external = self.external_id.one(claims)?;
        let principal = self.principal(proof, external.as_ref(), snapshot)?;
        let (roles, team_roles) = (self.roles.many(claims)?, self.team_roles.many(claims)?);
        let mut metadata = Vec::with_capacity(self.metadata.len());
        for (name, sources) in &self.metadata {
            metadata.extend(sources.one(claims)?.map(|value| (name.clone(), value)));
        }
        let said = Said {
            replaces: self.replaces,
            teams: self.teams.many(claims)?.into(),
            orgs: self.orgs.many(claims)?.into(),
            roles: roles.into_iter().filter(|role| !role.starts_with(RESERVED_ROLE_PREFIX)).collect(),
            team_roles: team_roles.into_iter().filter(|role| is_team_role(role)).collect(),
            tags: self.tags.many(claims)?.into(),
            email: self.email.email(claims)?,
            external_id: external,
        };
        Ok(Identity {
            said,
            metadata: metadata.into(),
            expires_at: Some(proof.expires_at),
            ..Identity::new(principal, proof.method)
        })
    }

    fn principal(
        &self,
        proof: &Proof<'_>,
        external: Option<&SmolStr>,
        snapshot: &Snapshot,
    ) -> Result<EntityUid, Refusal> {
        let (kind, named, name, setting) = if self.is_service(proof.claims)? {
            (Kind::SERVICE, &self.service, "Service", "claims.service")
        } else {
            (Kind::USER, &self.user, "User", "claims.user")
        };
        if let Some(index) = self.linked(proof, external, snapshot, kind)? {
            return Ok(snapshot.store.uid(index));
        }
        let id = match named.one(proof.claims)? {
            Some(id) => checked_id(id, setting)?,
            None => format_smolstr!("{}{SEPARATOR}{}", proof.issuer, proof.subject),
        };
        let known = snapshot.store.find(kind, &id).is_some_and(|index| snapshot.store.record(index).declared);
        if !known && !self.allow_unknown {
            return Err(nobody_known());
        }
        EntityUid::new(name, id).map_err(|error| {
            Refusal::new(RefusalReason::Malformed, format!("the token's `sub` is not a valid id: {error}"))
        })
    }

    fn is_service(&self, claims: &Map<String, Value>) -> Result<bool, Refusal> {
        match &self.service_when {
            ServiceWhen::Never => Ok(false),
            ServiceWhen::Always => Ok(true),
            ServiceWhen::All(wanted) => {
                wanted.iter().try_for_each(|wanted| wanted.check_told(claims))?;
                Ok(wanted.iter().all(|wanted| wanted.holds(claims)))
            }
        }
    }

    /// The user or service of the bundle to which the token is linked: by the id in the issuer's own directory, else by
    /// the email address.
    fn linked(
        &self,
        proof: &Proof<'_>,
        external: Option<&SmolStr>,
        snapshot: &Snapshot,
        kind: Kind,
    ) -> Result<Option<EntityIndex>, Refusal> {
        let store = &snapshot.store;
        let one = |found: External, what: &'static str| match found {
            External::Nobody => Ok(None),
            External::One(index) => Ok(Some(index)),
            External::Several => Err(nobody_known().about(what)),
        };
        if let Some(external) = external {
            let scoped = format_smolstr!("{}{SEPARATOR}{external}", proof.issuer);
            let plain = (self.directory && !self.names_an_issuer(external)).then(|| external.clone());
            for id in std::iter::once(scoped).chain(plain) {
                if let Some(index) = one(store.external(kind, &id), "several have this external_id")? {
                    return Ok(Some(index));
                }
            }
        }
        let Link::Email(how) = self.link else { return Ok(None) };
        match self.email.proved_email(proof.claims, how)? {
            Some(email) => one(store.by_email(kind, &email), "several have this email"),
            None => Ok(None),
        }
    }

    /// Whether an `external_id` of the bundle that reads so means an issuer and an id of that issuer. Ids may have the
    /// separator in them (`auth0|5f7c`), so that not all that looks like both is.
    #[must_use]
    pub fn names_an_issuer(&self, external_id: &str) -> bool {
        let Some((issuer, _)) = external_id.split_once(SEPARATOR) else { return false };
        issuer.contains("://") || self.known_issuers.iter().any(|known| known == issuer)
    }

    /// Advice for a token that could be linked to a declared principal and is not.
    #[must_use]
    pub fn advice(&self) -> &'static str {
        match self.link {
            Link::ExternalId { .. } => "set `link: [external_id, email]` for this issuer, or declare the `external_id`",
            Link::Email(EmailProof::Verified) => {
                "link them by an `external_id`, or, if this issuer verifies addresses but its tokens have no \
                 `email_verified`, set `email_verified: assumed`"
            }
            Link::Email(EmailProof::Assumed) => {
                "link them by an `external_id`, or name the declared one by `claims.user`"
            }
        }
    }

    /// What the chosen headers of a request add to an identity's metadata; what its credential says of the same name stands.
    #[must_use]
    pub fn with_headers(&self, identity: &Identity, request: &Described) -> Option<Identity> {
        let mut added: Vec<(SmolStr, SmolStr)> = Vec::new();
        for name in &self.headers {
            let said = identity.metadata.iter().chain(&added).any(|(known, _)| known == name);
            let mut values = request.headers.iter().filter(|(known, _)| known == name);
            // Of a header that stands twice, nobody knows which counts.
            if let (false, Some((_, value)), None) = (said, values.next(), values.next())
                && check_name(value).is_ok()
            {
                added.push((name.clone(), value.clone()));
            }
        }
        if added.is_empty() {
            return None;
        }
        let metadata = identity.metadata.iter().cloned().chain(added).collect();
        Some(Identity { metadata, ..identity.clone() })
    }
}
