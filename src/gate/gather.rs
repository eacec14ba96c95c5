//! Gathering: which limits bind a request, and whose meter each of them charges. Pure; what the meters say is for the
//! caller to read.

use std::cell::OnceCell;
use std::sync::Arc;

use sha2::{Digest as _, Sha256};
use smol_str::{SmolStr, SmolStrBuilder, format_smolstr};

use super::context::RequestContext;
use super::evaluate::Question;
use crate::meter::{Limit, Unpriced};
use crate::model::hex;
use crate::model::{EntityUid, Identity, KeyLimit, Unit};
use crate::policy::Snapshot;
use crate::policy::entities::{EntityIndex, EntityStore, Kind, Subject};
use crate::policy::index::ScopeIndex;
use crate::policy::limits::BoundLimit;
use crate::policy::schema::ActionIndex;
use crate::policy::snapshot::ActionSetIndex;
use crate::policy::syntax::Each;

/// Up to so many bytes a text of a request stands in a meter's name as it is.
const MAX_NAMED_BYTES: usize = 128;

/// Whether a request for `resource` can charge `limit`. A resource that costs nothing, by its price or because the
/// limit treats unpriced models as free, cannot charge a limit of money unless its caller states a cost.
pub(super) fn can_charge(snapshot: &Snapshot, resource: &Subject, limit: &Limit) -> bool {
    if limit.unit() != Unit::Usd || !snapshot.store.name_of(resource).0.is_priced() {
        return true;
    }
    match snapshot.price(resource) {
        Some(price) => !price.is_free(),
        None => limit.unpriced == Unpriced::Forbid,
    }
}

/// A limit that applies to a request, with one of its meters.
#[derive(Debug, Clone)]
pub struct Applying<'a> {
    /// The limit.
    pub limit: &'a BoundLimit,
    /// Whose meter: a uid, `context.end_user::"…"` or `context.metadata.<key>::"…"`; `None` for the one that all share.
    pub subject: Option<SmolStr>,
}

/// The limits that apply to a request, in the order of the bundle, each once for every meter of it that is charged: a
/// caller in two teams may be charged on both. `router` is what a model is reached through.
#[must_use]
pub fn applicable<'a>(snapshot: &'a Snapshot, question: &Question<'_>, router: Option<&Subject>) -> Vec<Applying<'a>> {
    let Question { principal, resource, action, context, .. } = *question;
    let Some(action) = action else { return Vec::new() };
    let bound = snapshot.limits_for(principal, resource, router, action);
    if bound.is_empty() {
        return Vec::new();
    }
    let asked = Asked { caller: Caller::of(&snapshot.store, principal), resource, router, context };
    let mut applying = Vec::with_capacity(bound.len());
    for limit in bound {
        let Some(each) = &limit.each else {
            applying.push(Applying { limit, subject: None });
            continue;
        };
        let groups = match each {
            Each::Team => asked.caller.teams(context.team(), &limit.payers),
            Each::Org => asked.caller.orgs(&limit.payers),
            _ => Vec::new(),
        };
        if groups.is_empty() {
            let subject = asked.subject(each).unwrap_or_else(|| asked.caller.own());
            applying.push(Applying { limit, subject: Some(subject) });
        }
        applying.extend(in_order(groups).into_iter().map(|group| Applying { limit, subject: Some(group) }));
    }
    applying
}

/// Each once: the order of two meters must not depend on the order of files.
fn in_order(mut subjects: Vec<SmolStr>) -> Vec<SmolStr> {
    subjects.sort_unstable();
    subjects.dedup();
    subjects
}

/// A key's own limits, as those of the bundle are.
pub(super) fn own_limits(identity: &Identity) -> Box<[BoundLimit]> {
    let bound = |own: &KeyLimit| BoundLimit {
        limit: Arc::clone(&own.limit),
        each: own.each.clone(),
        // They bind nobody else, and are looked for under no scope.
        principal: ScopeIndex(0),
        resource: ScopeIndex(0),
        actions: ActionSetIndex(0),
        payers: Box::default(),
        description: None,
        file: Arc::default(),
        line: 0,
    };
    identity.limits.iter().map(bound).collect()
}

/// Those of `own` that apply: all of them to every use but `list`.
pub(super) fn own_applicable<'a>(
    own: &'a [BoundLimit],
    question: &Question<'_>,
    router: Option<&Subject>,
) -> Vec<Applying<'a>> {
    let Question { snapshot, principal, resource, action, context, .. } = *question;
    let schema = &snapshot.schema;
    let group = schema.action("use").and_then(|index| schema.action_at(index));
    let is_used = |index: &ActionIndex| {
        let is_list = schema.action_at(*index).is_some_and(|action| action.name == "list");
        group.is_some_and(|group| group.descendants.contains(*index)) && !is_list
    };
    if own.is_empty() || action.as_ref().is_none_or(|index| !is_used(index)) {
        return Vec::new();
    }
    let asked = Asked { caller: Caller::of(&snapshot.store, principal), resource, router, context };
    let (kind, id) = snapshot.store.name_of(principal);
    let subject = |limit: &BoundLimit| {
        let found = limit.each.as_ref().and_then(|each| asked.subject(each));
        found.unwrap_or_else(|| uid(&snapshot.store, kind, id))
    };
    own.iter().map(|limit| Applying { limit, subject: Some(subject(limit)) }).collect()
}

/// Whose meters of a limit a caller can be told about before it asks for anything.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Told {
    /// These; `None` for the one that all share.
    These(Vec<Option<SmolStr>>),
    /// Those that exist and begin with `prefix`, and the caller's own if that exists.
    Existing { prefix: String, own: SmolStr },
}

/// Whose meters of `limit` requests of `principal` can charge, as far as that can be said before there is one. Of teams
/// each one that the caller is in, since a request may name any of them as payer.
pub(super) fn told(snapshot: &Snapshot, principal: &Subject, limit: &BoundLimit) -> Told {
    let store = &snapshot.store;
    let caller = Caller::of(store, principal);
    if let Some(prefix) = limit.each.as_ref().and_then(|each| of_requests(store, each)) {
        return Told::Existing { prefix, own: caller.own() };
    }
    let mut subjects = match &limit.each {
        None => return Told::These(vec![None]),
        Some(Each::User) => caller.if_is(Kind::USER).into_iter().collect(),
        Some(Each::Service) => caller.if_is(Kind::SERVICE).into_iter().collect(),
        Some(Each::Key) if store.name_of(principal).0 == Kind::API_KEY => {
            let (kind, id) = store.name_of(principal);
            vec![uid(store, kind, id)]
        }
        Some(Each::Team) => {
            let meant = caller.above().into_iter().filter(|group| caller.is_meant(*group, &limit.payers));
            caller.uids(meant, Kind::TEAM)
        }
        Some(Each::Org) => caller.orgs(&limit.payers),
        Some(Each::Key | Each::Model | Each::Router | Each::EndUser | Each::Metadata(_)) => Vec::new(),
    };
    if subjects.is_empty() {
        subjects.push(caller.own());
    }
    Told::These(in_order(subjects).into_iter().map(Some).collect())
}

/// The same of a limit of the key's own ([`own_applicable`]).
pub(super) fn told_own(snapshot: &Snapshot, principal: &Subject, limit: &BoundLimit) -> Told {
    let store = &snapshot.store;
    let (kind, id) = store.name_of(principal);
    let own = uid(store, kind, id);
    if let Some(prefix) = limit.each.as_ref().and_then(|each| of_requests(store, each)) {
        return Told::Existing { prefix, own };
    }
    let caller = Caller::of(store, principal);
    let subject = match &limit.each {
        Some(Each::User) => caller.if_is(Kind::USER),
        Some(Each::Service) => caller.if_is(Kind::SERVICE),
        _ => None,
    };
    Told::These(vec![Some(subject.unwrap_or(own))])
}

/// How meters begin that only a request can name.
fn of_requests(store: &EntityStore, each: &Each) -> Option<String> {
    match each {
        Each::Model | Each::Router => each.resource_kind().map(|kind| format!("{}::\"", store.kind_text(kind))),
        Each::EndUser => Some("context.end_user::".to_owned()),
        Each::Metadata(key) => Some(format!("context.metadata.{key}::")),
        Each::User | Each::Service | Each::Key | Each::Team | Each::Org => None,
    }
}

/// What of a request tells whose meters it charges.
struct Asked<'a> {
    caller: Caller<'a>,
    resource: &'a Subject,
    router: Option<&'a Subject>,
    context: &'a RequestContext,
}

/// Who is charged: whoever asks, and for a key its owner.
struct Caller<'a> {
    store: &'a EntityStore,
    principal: &'a Subject,
    owner: Option<EntityIndex>,
    /// The owner of a key, where the bundle knows nothing of it.
    stranger: Option<(Kind, &'a SmolStr)>,
    /// [`Caller::own`], once somebody asked.
    own: OnceCell<SmolStr>,
}

impl<'a> Caller<'a> {
    fn of(store: &'a EntityStore, principal: &'a Subject) -> Self {
        let is_key = store.name_of(principal).0 == Kind::API_KEY;
        let mut parents = store.parents(principal).iter().copied();
        let owner = parents.find(|parent| is_key && store.record(*parent).kind != Kind::OWNER_KIND);
        let stranger = match principal {
            Subject::Proved(proved) => proved.identity.owner.as_ref(),
            _ => None,
        };
        let stranger = stranger.and_then(|owner| Some((store.kind_of(owner.kind())?, owner.id_smol())));
        Self { store, principal, owner, stranger, own: OnceCell::new() }
    }

    /// The type and id of whoever is charged.
    fn name(&self) -> (Kind, &SmolStr) {
        match self.owner {
            Some(owner) => {
                let record = self.store.record(owner);
                (record.kind, &record.id)
            }
            None => self.stranger.unwrap_or_else(|| self.store.name_of(self.principal)),
        }
    }

    /// The meter of who has none of the kind that a limit asks for.
    fn own(&self) -> SmolStr {
        let name = || {
            let (kind, id) = self.name();
            uid(self.store, kind, id)
        };
        self.own.get_or_init(name).clone()
    }

    /// The caller's own meter, where the caller is of that kind.
    fn if_is(&self, kind: Kind) -> Option<SmolStr> {
        (self.name().0 == kind).then(|| self.own())
    }

    /// What the caller is directly in; for a key of a team, that team.
    fn groups(&self) -> Vec<EntityIndex> {
        match self.owner {
            Some(owner) if matches!(self.store.record(owner).kind, Kind::TEAM | Kind::ORG) => vec![owner],
            Some(owner) => self.store.record(owner).parents.to_vec(),
            None => self.store.parents(self.principal).to_vec(),
        }
    }

    /// Everything that the caller is in, through whatever.
    fn above(&self) -> Vec<EntityIndex> {
        self.store.closure(&self.groups())
    }

    fn uids(&self, indices: impl IntoIterator<Item = EntityIndex>, kind: Kind) -> Vec<SmolStr> {
        let of_kind = indices.into_iter().map(|index| self.store.record(index)).filter(|record| record.kind == kind);
        of_kind.map(|record| uid(self.store, kind, &record.id)).collect()
    }

    /// Whether the limit that names `payers` means the group: it names none, or the group, or what that is in.
    fn is_meant(&self, group: EntityIndex, payers: &[EntityIndex]) -> bool {
        payers.is_empty() || self.store.closure(&[group]).iter().any(|above| payers.contains(above))
    }

    /// The team that pays, if the request names one that the caller is in and the limit means; else each team of the
    /// caller's own that the limit means.
    fn teams(&self, named: Option<&SmolStr>, payers: &[EntityIndex]) -> Vec<SmolStr> {
        let named = named.and_then(|name| self.store.find(Kind::TEAM, name));
        if let Some(team) = named.filter(|team| self.is_meant(*team, payers) && self.above().contains(team)) {
            return self.uids([team], Kind::TEAM);
        }
        self.uids(self.groups().into_iter().filter(|group| self.is_meant(*group, payers)), Kind::TEAM)
    }

    /// The orgs that the caller is in; of a limit that names groups, those of the named ones that the caller is in.
    fn orgs(&self, payers: &[EntityIndex]) -> Vec<SmolStr> {
        let above = self.above();
        if payers.is_empty() {
            return self.uids(above, Kind::ORG);
        }
        let named: Vec<EntityIndex> = payers.iter().copied().filter(|payer| above.contains(payer)).collect();
        self.uids(self.store.closure(&named), Kind::ORG)
    }
}

impl Asked<'_> {
    /// Whose meter a limit with this `each` charges, where it is one for each of something else than groups; `None` where
    /// the caller has none of that kind.
    fn subject(&self, each: &Each) -> Option<SmolStr> {
        let Self { caller, resource, router, context } = self;
        let named = |name: &str, text: &SmolStr| format_smolstr!("context.{name}::{}", short(text));
        let if_is = |subject: &Subject, kind: Kind| {
            let (of, id) = caller.store.name_of(subject);
            (of == kind).then(|| uid(caller.store, kind, id))
        };
        match each {
            Each::User => caller.if_is(Kind::USER),
            Each::Service => caller.if_is(Kind::SERVICE),
            Each::Key => if_is(caller.principal, Kind::API_KEY),
            Each::Team | Each::Org => None,
            Each::Model | Each::Router => {
                let kind = each.resource_kind()?;
                router.and_then(|router| if_is(router, kind)).or_else(|| if_is(resource, kind))
            }
            Each::EndUser => context.end_user().map(|text| named("end_user", text)),
            Each::Metadata(key) => context.metadata_of(key).map(|text| named(&format!("metadata.{key}"), text)),
        }
    }
}

/// A text of a request in the name of a meter; a long one by its digest, since a meter lives longer than its request and
/// whoever fills such a text from outside could fill the memory with names.
fn short(text: &str) -> String {
    if text.len() <= MAX_NAMED_BYTES {
        return format!("\"{}\"", text.escape_debug());
    }
    format!("sha256:{}", hex::encode(&Sha256::digest(text)))
}

/// A uid as answers write it. Most are short and need no escape, and so no allocation.
fn uid(store: &EntityStore, kind: Kind, id: &SmolStr) -> SmolStr {
    let plain = id.bytes().all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'\\' | b'\''));
    if !plain {
        return format_smolstr!("{}", EntityUid::trusted(store.kind_text(kind).clone(), id.clone()));
    }
    let mut text = SmolStrBuilder::new();
    for part in [store.kind_text(kind).as_str(), "::\"", id.as_str(), "\""] {
        text.push_str(part);
    }
    text.finish()
}

#[cfg(test)]
#[path = "gather_tests.rs"]
mod tests;
