//! Warnings at the start about how tokens are linked to the declared users of the bundle. If a token is not linked to
//! the declared user, its owner signs in as a second, undeclared user that the rules of the bundle do not cover.

use std::collections::BTreeSet;

use crate::config::IdentitySettings;
use crate::edge::identity::claims::{EmailProof, Link, Mapping, ServiceWhen};
use crate::policy::Snapshot;

/// A user or service of the bundle, as far as tokens are linked to it.
struct Person {
    uid: String,
    is_service: bool,
    has_email: bool,
    external_id: Option<String>,
}

/// Warns of what these settings and this bundle come to.
pub(super) fn warn(identity: &IdentitySettings, snapshot: &Snapshot) {
    for text in warnings(identity, snapshot) {
        tracing::warn!(target: "tollgate::identity", "{text}");
    }
}

fn warnings(identity: &IdentitySettings, snapshot: &Snapshot) -> Vec<String> {
    let issuers: Vec<(&str, &Mapping)> = identity.issuers().map(|(name, mapping)| (name.as_str(), mapping)).collect();
    if issuers.is_empty() {
        return Vec::new();
    }
    let people: Vec<Person> = people(snapshot).collect();
    let mut told: Vec<String> =
        issuers.iter().filter_map(|(name, mapping)| of_issuer(name, mapping, &people)).collect();
    told.extend(unmatched(&issuers, &people));
    told
}

/// Those of the bundle by whose id or address a token might be linked.
fn people(snapshot: &Snapshot) -> impl Iterator<Item = Person> {
    let people = snapshot.people().filter(|(_, extras)| extras.email.is_some() || extras.external_id.is_some());
    people.map(|(uid, extras)| Person {
        is_service: uid.kind() == "Service",
        uid: uid.to_string(),
        has_email: extras.email.is_some(),
        external_id: extras.external_id.as_ref().map(ToString::to_string),
    })
}

fn of_issuer(name: &str, mapping: &Mapping, people: &[Person]) -> Option<String> {
    match mapping.link {
        Link::Email(EmailProof::Assumed) => Some(format!(
            "`email_verified: assumed` for the issuer {name}: a user who can enter an arbitrary address there can \
             sign in as the declared user with that address"
        )),
        Link::Email(EmailProof::Verified) | Link::ExternalId { chosen: true } => None,
        Link::ExternalId { chosen: false } => {
            let is_meant = |person: &&Person| {
                let of_kind = match mapping.service_when {
                    ServiceWhen::Never => !person.is_service,
                    ServiceWhen::Always => person.is_service,
                    ServiceWhen::All(_) => true,
                };
                of_kind && person.has_email && !is_of(name, mapping, person)
            };
            let unlinked: Vec<&Person> = people.iter().filter(is_meant).collect();
            let first = unlinked.first()?;
            Some(format!(
                "tokens of the issuer {name} are not linked by email, and {} with an `email` in the bundle {} no \
                 `external_id` of it ({} first): unless a claim names their id, they sign in as other, \
                 undeclared users, to whom rules, limits and `disabled` do not apply; set `link: [external_id, email]` \
                 for the issuer, or `link: [external_id]` to accept this",
                counted(unlinked.len()),
                if unlinked.len() == 1 { "has" } else { "have" },
                first.uid,
            ))
        }
    }
}

/// Whether the person's `external_id` links them to the issuer.
fn is_of(issuer: &str, mapping: &Mapping, person: &Person) -> bool {
    let Some(id) = &person.external_id else { return false };
    let is_scoped = id.strip_prefix(issuer).is_some_and(|rest| rest.starts_with('|'));
    is_scoped || (mapping.directory && !mapping.names_an_issuer(id))
}

/// Those whose `external_id` no token can match.
fn unmatched(issuers: &[(&str, &Mapping)], people: &[Person]) -> Option<String> {
    let matches = |person: &&Person| issuers.iter().any(|(name, mapping)| is_of(name, mapping, person));
    let lost: BTreeSet<&str> = people
        .iter()
        .filter(|person| person.external_id.is_some() && !matches(person))
        .map(|person| person.uid.as_str())
        .collect();
    let first = lost.first()?;
    Some(format!(
        "the `external_id` of {} in the bundle ({first} first) matches no token: it names no configured issuer; write \
         `<issuer>|<id>`, or set `directory: true` for the one issuer whose ids are written alone",
        counted(lost.len()),
    ))
}

fn counted(count: usize) -> String {
    if count == 1 { "one user or service".to_owned() } else { format!("{count} users and services") }
}
