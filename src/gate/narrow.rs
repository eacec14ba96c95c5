//! What a key is narrowed to: each list is a forbid of everything else, for this key alone, as if it stood in the bundle.
//! What a list needs and a request does not tell (an address, a path) is refused.

use std::net::IpAddr;

use smol_str::{SmolStr, format_smolstr};

use super::context::RequestContext;
use crate::model::{AllowedPath, Effect, EntityUid, Narrowed, Network, RuleReference};
use crate::policy::Snapshot;
use crate::policy::entities::{Kind, Pattern, Subject};
use crate::policy::snapshot::ResourceName;

/// What of a request the lists of a key are compared with.
pub(super) struct Use<'a> {
    pub(super) snapshot: &'a Snapshot,
    pub(super) action: &'a str,
    pub(super) resource: &'a Subject,
    /// Whether a router leads to the resource, which then need not be on a list of its own.
    pub(super) through_router: bool,
    pub(super) context: &'a RequestContext,
}

/// The first list of `key` that the use is outside of, as the forbid that it is.
pub(super) fn forbids(narrowed: &Narrowed, key: &EntityUid, used: &Use<'_>) -> Option<RuleReference> {
    let list = outside(narrowed, used)?;
    let id = format_smolstr!("key:{}:{list}", key.id());
    Some(RuleReference { id, effect: Effect::Forbid, file: "".into(), line: 0 })
}

fn outside(narrowed: &Narrowed, used: &Use<'_>) -> Option<&'static str> {
    let Narrowed { models: _, routers: _, actions, paths, networks } = narrowed;
    if actions.as_ref().is_some_and(|actions| !actions.iter().any(|action| action == used.action)) {
        return Some("actions");
    }
    if let Some(kind) = outside_lists(narrowed, used) {
        return kind.list();
    }
    if paths.as_ref().is_some_and(|paths| !paths.iter().any(|allowed| is_for(allowed, used.context))) {
        return Some("paths");
    }
    if networks.as_ref().is_some_and(|networks| !is_from(networks, used.context)) {
        return Some("networks");
    }
    None
}

/// The kind of the list of resources that the use is outside of.
fn outside_lists(narrowed: &Narrowed, used: &Use<'_>) -> Option<Kind> {
    let (kind, id) = used.snapshot.store.name_of(used.resource);
    if let Some(list) = narrowed.list(kind) {
        let is_listed = list.iter().any(|name| is_meant(name, kind, id, used.snapshot));
        return (!is_listed).then_some(kind);
    }
    // A router would lead to models that the key may not use.
    if let Some(members) = kind.leads_to().filter(|members| narrowed.list(*members).is_some()) {
        return Some(members);
    }
    // A router is a grant of its own: its models are used through it.
    kind.grants().find(|grant| !used.through_router && narrowed.list(*grant).is_some())
}

/// Whether a list's `name` means the resource: its own name, an alias, an account as a whole, a pattern.
pub(super) fn is_meant(name: &SmolStr, kind: Kind, id: &SmolStr, snapshot: &Snapshot) -> bool {
    if name == "*" || name == id {
        return true;
    }
    if kind.namespace().is_none() {
        return false;
    }
    if !name.contains('*') {
        let alias = match snapshot.resource(kind, name) {
            ResourceName::Resource(subject) | ResourceName::Disabled(subject) => subject,
            ResourceName::Unknown => return false,
        };
        return snapshot.store.name_of(&alias).1 == id;
    }
    match name.strip_suffix("/*").filter(|account| !account.contains(['*', '/'])) {
        Some(account) => id.strip_prefix(account).is_some_and(|rest| rest.starts_with('/')),
        None => Pattern::new(kind, name.clone()).matches(kind, id),
    }
}

fn is_for(allowed: &AllowedPath, context: &RequestContext) -> bool {
    let Some(path) = context.path() else { return false };
    let fits = match allowed.beginning() {
        Some(beginning) => path.starts_with(beginning),
        None => path == allowed.path.as_str(),
    };
    let asked = |method: &SmolStr| context.method().is_some_and(|asked| asked == method.as_str());
    fits && (allowed.methods.is_empty() || allowed.methods.iter().any(asked))
}

fn is_from(networks: &[Network], context: &RequestContext) -> bool {
    let address = context.ip().and_then(|text| text.parse::<IpAddr>().ok());
    address.is_some_and(|address| networks.iter().any(|network| network.contains(address)))
}
