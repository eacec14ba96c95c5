//! What a key is narrowed to: each list is a forbid of everything else, for this key alone, as if it stood in the bundle.
//! What a list needs and a request does not tell (an address, a path) is refused.

use std::net::IpAddr;

use smol_str::{SmolStr, format_smolstr};

use super::context::RequestContext;
use crate::model::{AllowedPath, Effect, EntityUid, Narrowed, Network, RuleReference};
use crate::policy::Snapshot;
use crate::policy::entities::{Kind, Pattern, Subject};
use crate::policy::snapshot::ModelName;

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
    let Narrowed { models, routers, actions, paths, networks } = narrowed;
    let (kind, id) = used.snapshot.store.name_of(used.resource);
    if actions.as_ref().is_some_and(|actions| !actions.iter().any(|action| action == used.action)) {
        return Some("actions");
    }
    let names = |list: &[SmolStr]| list.iter().any(|name| is_meant(name, id, used.snapshot));
    match (kind, models, routers) {
        (Kind::MODEL, Some(models), _) if !names(models) => return Some("models"),
        // A router would lead to models that the key may not use.
        (Kind::ROUTER, Some(_), None) => return Some("models"),
        // A router is a grant of its own: its models are used through it.
        (Kind::MODEL, None, Some(_)) if !used.through_router => return Some("routers"),
        (Kind::ROUTER, _, Some(routers)) if !routers.iter().any(|router| router == id || router == "*") => {
            return Some("routers");
        }
        _ => {}
    }
    if paths.as_ref().is_some_and(|paths| !paths.iter().any(|allowed| is_for(allowed, used.context))) {
        return Some("paths");
    }
    if networks.as_ref().is_some_and(|networks| !is_from(networks, used.context)) {
        return Some("networks");
    }
    None
}

/// Whether a list's `name` means the model `id`: its own name, an alias, an account as a whole, a pattern.
pub(super) fn is_meant(name: &SmolStr, id: &SmolStr, snapshot: &Snapshot) -> bool {
    if name == "*" || name == id {
        return true;
    }
    if !name.contains('*') {
        let alias = match snapshot.model(name) {
            ModelName::Model(subject) | ModelName::Disabled(subject) => subject,
            ModelName::Unknown => return false,
        };
        return snapshot.store.name_of(&alias).1 == id;
    }
    match name.strip_suffix("/*").filter(|account| !account.contains(['*', '/'])) {
        Some(account) => id.strip_prefix(account).is_some_and(|rest| rest.starts_with('/')),
        None => Pattern(name.clone()).matches(id),
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
