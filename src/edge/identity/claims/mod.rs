//! From what an issuer says to whom rules see: claims become a principal, its teams, orgs, roles, tags and metadata.
//!
//! What is hard about it: two issuers may call two people the same, and a token may try to name somebody else. So a
//! subject is always its issuer's, a claim can never name another issuer's subject, and no claim gives a role of ours.

mod path;
mod sources;

use serde_json::{Map, Value};
use smol_str::{SmolStr, format_smolstr};

pub use path::{ClaimPath, PathError};
pub use sources::{ClaimSource, Source, Sources, Split, Wanted};

use crate::gate::Described;
use crate::model::{
    AuthMethod, EntityUid, Identity, RESERVED_ROLE_PREFIX, Refusal, RefusalReason, Said, Timestamp, check_name,
};
use crate::policy::Snapshot;
use crate::policy::entities::{External, Kind};

/// Between an issuer and its subject. No issuer has it in its name, and no claim may say it in an id.
const SEPARATOR: char = '|';

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
    /// Whether an `external_id` of the bundle without an issuer is this issuer's.
    pub directory: bool,
    /// Teams.
    pub teams: Sources,
    /// Orgs.
    pub orgs: Sources,
    /// Roles.
    pub roles: Sources,
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
            directory: false,
            teams: Sources::default(),
            orgs: Sources::default(),
            roles: Sources::default(),
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
        let roles = self.roles.many(claims)?;
        let mut metadata = Vec::with_capacity(self.metadata.len());
        for (name, sources) in &self.metadata {
            metadata.extend(sources.one(claims)?.map(|value| (name.clone(), value)));
        }
        let said = Said {
            replaces: self.replaces,
            teams: self.teams.many(claims)?.into(),
            orgs: self.orgs.many(claims)?.into(),
            roles: roles.into_iter().filter(|role| !role.starts_with(RESERVED_ROLE_PREFIX)).collect(),
            team_roles: Box::default(),
            tags: self.tags.many(claims)?.into(),
            email: self.email.one(claims)?,
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
        let is_service = match &self.service_when {
            ServiceWhen::Never => false,
            ServiceWhen::Always => true,
            ServiceWhen::All(wanted) => wanted.iter().all(|wanted| wanted.holds(proof.claims)),
        };
        let (kind, named, name) =
            if is_service { (Kind::SERVICE, &self.service, "Service") } else { (Kind::USER, &self.user, "User") };
        let id = match named.one(proof.claims)? {
            Some(id) if id.contains(SEPARATOR) => {
                return Err(Refusal::new(
                    RefusalReason::Untrusted,
                    "a claim of the token names another issuer's subject",
                ));
            }
            Some(id) => id,
            None => match self.of_directory(proof, external, snapshot, kind)? {
                Some(id) => id,
                None => format_smolstr!("{}{SEPARATOR}{}", proof.issuer, proof.subject),
            },
        };
        let known = snapshot.store.find(kind, &id).is_some_and(|index| snapshot.store.record(index).declared);
        if !known && !self.allow_unknown {
            return Err(Refusal::new(RefusalReason::UnknownPrincipal, "the token proves nobody who may ask here"));
        }
        EntityUid::new(name, id)
            .map_err(|_| Refusal::new(RefusalReason::Malformed, "the token's subject holds what names nothing"))
    }

    /// Whom the bundle knows by the id in the issuer's own directory.
    fn of_directory(
        &self,
        proof: &Proof<'_>,
        external: Option<&SmolStr>,
        snapshot: &Snapshot,
        kind: Kind,
    ) -> Result<Option<SmolStr>, Refusal> {
        let Some(external) = external else { return Ok(None) };
        let scoped = format_smolstr!("{}{SEPARATOR}{external}", proof.issuer);
        let plain = (self.directory && !external.contains(SEPARATOR)).then(|| external.clone());
        for id in std::iter::once(scoped).chain(plain) {
            match snapshot.store.external(kind, &id) {
                External::Nobody => {}
                External::One(index) => return Ok(Some(snapshot.store.record(index).id.clone())),
                External::Several => {
                    let message = "the token proves nobody who may ask here";
                    return Err(Refusal::new(RefusalReason::UnknownPrincipal, message).about("external_id of several"));
                }
            }
        }
        Ok(None)
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
