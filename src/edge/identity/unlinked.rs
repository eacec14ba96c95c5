//! A warning for a declared person who signs in under an undeclared id: by an email address instead of an id, or by an
//! id in other letters. The rules, limits and `disabled` of the declared id do not apply to the other one.

use std::sync::atomic::{AtomicBool, Ordering};

use crate::model::EntityUid;
use crate::policy::Snapshot;
use crate::policy::entities::{EntityIndex, External};

/// Logged once for each provider or issuer. An operator who looks into it finds the other affected users.
#[derive(Debug, Default)]
pub(super) struct UnlinkedWarning(AtomicBool);

/// The principal that a credential proved.
pub(super) struct Proved<'a> {
    /// The provider, or the issuer.
    pub(super) by: &'a str,
    /// Who it is.
    pub(super) principal: &'a EntityUid,
    /// The email address in the credential.
    pub(super) email: Option<&'a str>,
    /// What to do about it.
    pub(super) advice: &'a str,
}

impl UnlinkedWarning {
    /// Warns the first time that `proved` seems to be another one of the bundle.
    pub(super) fn look(&self, proved: &Proved<'_>, snapshot: &Snapshot) {
        if self.0.load(Ordering::Relaxed) {
            return;
        }
        let Some((declared, likeness)) = declared_like(proved, snapshot) else { return };
        if self.0.swap(true, Ordering::Relaxed) {
            return;
        }
        let Proved { by, principal, advice, .. } = proved;
        tracing::warn!(
            target: "tollgate::identity",
            by,
            principal = %principal,
            declared = %declared,
            "{by} proved {principal}, which the bundle does not declare, while it declares {declared}{likeness}: they \
             are two principals, and rules, limits and `disabled` of {declared} do not apply to the other; {advice}"
        );
    }
}

/// The declared user or service that an undeclared one may be meant to be.
fn declared_like(proved: &Proved<'_>, snapshot: &Snapshot) -> Option<(EntityUid, &'static str)> {
    let (store, id) = (&snapshot.store, proved.principal.id());
    let kind = store.kind_of(proved.principal.kind())?;
    let declared = |index: &EntityIndex| store.record(*index).declared;
    if store.find(kind, id).is_some_and(|index| declared(&index)) {
        return None;
    }
    let by_email = [proved.email, Some(id)].into_iter().flatten().find_map(|email| match store.by_email(kind, email) {
        External::One(index) => Some(index),
        External::Nobody | External::Several => None,
    });
    if let Some(index) = by_email {
        return Some((store.uid(index), " with that email"));
    }
    let in_lower_case = store.find(kind, &id.to_ascii_lowercase()).filter(declared)?;
    Some((store.uid(in_lower_case), ", whose id differs by case alone"))
}
