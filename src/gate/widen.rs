//! Whether a change lets a key do more than before. Each list of a key is a forbid of everything else, so a list that is
//! removed, or names something new, widens the key; and so does a limit that is removed or raised.
//!
//! The comparison is exact when it reports that nothing is widened. If two lists are hard to compare (two patterns, or
//! a network that is the sum of two others), it reports that the key is widened. A caller who is wrongly refused can
//! name the same items as the list before.

use std::collections::HashSet;

use smol_str::SmolStr;

use super::narrow::is_meant;
use crate::meter::{Limit, Measure};
use crate::model::{AllowedPath, KeyDetails, KeyLimit, KeyRecord, Kind, Narrowed, Network};
use crate::policy::Snapshot;
use crate::policy::snapshot::ResourceName;

/// The first member by which `after` may do more than `before`, or differs in a way that a rule might depend on. `note`
/// has no effect on decisions.
pub(super) fn widened(before: &KeyRecord, after: &KeyRecord, snapshot: &Snapshot) -> Option<&'static str> {
    static NOTHING: std::sync::LazyLock<Narrowed> = std::sync::LazyLock::new(Narrowed::default);
    let (was, is) = (before.details(), after.details());
    let list = |details: &KeyDetails| details.narrowed.clone();
    let (was_list, is_list) = (list(was), list(is));
    let (was_list, is_list) = (was_list.as_deref().unwrap_or(&NOTHING), is_list.as_deref().unwrap_or(&NOTHING));
    let state = [
        ("expires_at", before.expires_at.is_some_and(|end| after.lasts_beyond(end))),
        ("disabled", was.disabled.is_some() && is.disabled.is_none()),
    ];
    let lists = Kind::all().filter_map(|kind| Some((kind.list()?, more_resources(kind, was_list, is_list, snapshot))));
    let others = [
        ("actions", more(was_list.actions.as_deref(), is_list.actions.as_deref(), <[_]>::contains)),
        ("paths", more(was_list.paths.as_deref(), is_list.paths.as_deref(), has_path)),
        ("networks", more(was_list.networks.as_deref(), is_list.networks.as_deref(), has_network)),
        ("limits", !was.limits.iter().all(|limit| is.limits.iter().any(|other| is_no_wider(other, limit)))),
        ("tags", !is_same(&was.tags, &is.tags)),
        ("metadata", was.metadata != is.metadata || was.payer != is.payer),
        ("roles", !is.roles.iter().all(|role| was.roles.contains(role))),
    ];
    let first = state.into_iter().chain(lists).chain(others).find(|(_, is_wider)| *is_wider).map(|(name, _)| name);
    first.map(|name| if name == "metadata" && was.payer != is.payer { "team" } else { name })
}

/// Whether `is` lets through what `was` does not: no list lets everything through.
fn more<T>(was: Option<&[T]>, is: Option<&[T]>, covers: impl Fn(&[T], &T) -> bool) -> bool {
    match (was, is) {
        (None, _) => false,
        (Some(_), None) => true,
        (Some(was), Some(is)) => !is.iter().all(|one| covers(was, one)),
    }
}

fn is_same(one: &[SmolStr], other: &[SmolStr]) -> bool {
    let set = |names: &[SmolStr]| names.iter().cloned().collect::<HashSet<_>>();
    set(one) == set(other)
}

/// The resources of one kind that a key may use.
enum Reach<'a> {
    All,
    Nothing,
    Of(&'a [SmolStr]),
}

impl<'a> Reach<'a> {
    fn of(list: Option<&'a [SmolStr]>) -> Self {
        list.map_or(Self::All, Self::Of)
    }

    fn is_within(&self, other: &Self, covers: impl Fn(&[SmolStr], &SmolStr) -> bool) -> bool {
        match (self, other) {
            (Self::Nothing, _) | (_, Self::All) => true,
            (_, Self::Nothing) | (Self::All, Self::Of(_)) => false,
            (Self::Of(these), Self::Of(those)) => these.iter().all(|one| covers(those, one)),
        }
    }
}

/// Resources that a key may use directly. A key with only a list of routers has no models, so adding a list of models
/// widens it; a key with only a list of models has no routers.
fn directly(narrowed: &Narrowed, kind: Kind) -> Reach<'_> {
    let mut related = kind.grants().chain(kind.leads_to());
    match narrowed.list(kind) {
        None if related.any(|other| narrowed.list(other).is_some()) => Reach::Nothing,
        list => Reach::of(list),
    }
}

/// Models that a key may use through a router. A key with only a list of models has none.
fn through_grants(narrowed: &Narrowed, kind: Kind) -> Reach<'_> {
    match narrowed.list(kind) {
        Some(_) if !kind.grants().any(|grant| narrowed.list(grant).is_some()) => Reach::Nothing,
        // Nothing leads to a router.
        None if kind.grants().next().is_none() => Reach::Nothing,
        list => Reach::of(list),
    }
}

fn more_resources(kind: Kind, was: &Narrowed, is: &Narrowed, snapshot: &Snapshot) -> bool {
    let covers = |those: &[SmolStr], name: &SmolStr| has_resource(those, kind, name, snapshot);
    !directly(is, kind).is_within(&directly(was, kind), covers)
        || !through_grants(is, kind).is_within(&through_grants(was, kind), covers)
}

/// Whether all that `name` means is on a list: it stands there, or it is all of it in an account that stands there, or it
/// is one model, which the list means.
fn has_resource(list: &[SmolStr], kind: Kind, name: &SmolStr, snapshot: &Snapshot) -> bool {
    let is_qualified = kind.namespace().is_some();
    let in_account = |known: &SmolStr| {
        let account = known.strip_suffix("/*").filter(|account| !account.contains(['*', '/']));
        account.is_some_and(|account| name.strip_prefix(account).is_some_and(|rest| rest.starts_with('/')))
    };
    if list.iter().any(|known| known == name || known == "*" || (is_qualified && in_account(known))) {
        return true;
    }
    if name.contains('*') || !is_qualified {
        return false;
    }
    match snapshot.resource(kind, name) {
        ResourceName::Resource(subject) | ResourceName::Disabled(subject) => {
            let (kind, id) = snapshot.store.name_of(&subject);
            list.iter().any(|known| is_meant(known, kind, id, snapshot))
        }
        // A name that is not a model now may become an alias of another one.
        ResourceName::Unknown => false,
    }
}

/// Whether a list of paths lets through all that `path` does, with each of its methods.
fn has_path(list: &[AllowedPath], path: &AllowedPath) -> bool {
    let takes = |known: &AllowedPath| match (known.beginning(), path.beginning()) {
        (Some(known), Some(beginning)) => beginning.starts_with(known),
        (Some(known), None) => path.path.starts_with(known),
        (None, _) => known.path == path.path,
    };
    let known: Vec<&AllowedPath> = list.iter().filter(|known| takes(known)).collect();
    let any = known.iter().any(|known| known.methods.is_empty());
    let each = |method: &SmolStr| known.iter().any(|known| known.methods.contains(method));
    any || (!path.methods.is_empty() && path.methods.iter().all(each))
}

fn has_network(list: &[Network], network: &Network) -> bool {
    list.iter().any(|known| known.covers(network))
}

/// Whether a limit binds no less than another: it is the same one, with a cap and a flow that are no higher. A limit of
/// another series would begin with an empty meter.
fn is_no_wider(is: &KeyLimit, was: &KeyLimit) -> bool {
    let (limit, before) = (&*is.limit, &*was.limit);
    let measure = match (&limit.measure, &before.measure) {
        (Measure::Rate { amount, .. }, Measure::Rate { amount: most, unit, every_ms }) => {
            (amount <= most).then_some(Measure::Rate { unit: *unit, amount: *amount, every_ms: *every_ms })
        }
        _ => Some(before.measure.clone()),
    };
    let Some(measure) = measure else { return false };
    let same = Limit { cap: limit.cap, measure, warn_at: limit.warn_at.clone(), ..before.clone() };
    is.each == was.each && limit.cap <= before.cap && *limit == same
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::AtomicI64;

    use super::*;
    use crate::model::{EntityUid, KeyHash, Pause, Timestamp};
    use crate::policy::parse::key_limits;
    use crate::policy::{Bundle, SourceFile, load};

    fn snapshot() -> Snapshot {
        let text = "provider_accounts: [{ id: oa, models: [{ name: big, aliases: [ada] }, small] }]\n\
                    authz_rules: [{ users: [a], models: [oa/big] }]\n";
        let bundle = Bundle::new(SourceFile::new("rules.yaml", text.as_bytes()).into_iter().collect());
        Arc::try_unwrap(load(&bundle).unwrap().snapshot).unwrap()
    }

    fn key(details: KeyDetails) -> KeyRecord {
        KeyRecord {
            id: "k".into(),
            owner: EntityUid::new("User", "a").unwrap(),
            hash: KeyHash::default(),
            version: 1,
            created_at: Timestamp::from_millis(0),
            expires_at: None,
            used_at: AtomicI64::new(0),
            more: Some(Box::new(details)),
        }
    }

    fn names(list: &[&str]) -> Box<[SmolStr]> {
        list.iter().map(SmolStr::new).collect()
    }

    fn narrowed(narrowed: Narrowed) -> KeyDetails {
        KeyDetails { narrowed: Some(Arc::new(narrowed)), ..KeyDetails::default() }
    }

    fn compared(before: KeyDetails, after: KeyDetails) -> Option<&'static str> {
        widened(&key(before), &key(after), &snapshot())
    }

    #[test]
    fn models_and_routers_are_compared_by_what_they_reach() {
        let of = |models: Option<&[&str]>, routers: Option<&[&str]>| {
            narrowed(Narrowed { models: models.map(names), routers: routers.map(names), ..Narrowed::default() })
        };
        for (before, after, wider) in [
            ((None, None), (Some(&["oa/big"][..]), None), None),
            ((Some(&["oa/*"][..]), None), (Some(&["oa/big", "oa/s*", "ada"][..]), None), None),
            ((Some(&["ada"][..]), None), (Some(&["oa/big"][..]), None), None),
            ((Some(&["oa/big"][..]), None), (Some(&["ada"][..]), None), None),
            ((Some(&["oa/big"][..]), None), (Some(&["oa/*"][..]), None), Some("models")),
            ((Some(&["oa/*"][..]), None), (Some(&["oab/x"][..]), None), Some("models")),
            ((Some(&["oa/*"][..]), None), (None, None), Some("models")),
            ((Some(&["*/b*"][..]), None), (Some(&["oa/big"][..]), None), None),
            ((Some(&["oa/b*"][..]), None), (Some(&["oa/bi*"][..]), None), Some("models")),
            // With models alone no router is used; one that is added is one more.
            ((Some(&["oa/*"][..]), None), (Some(&["oa/*"][..]), Some(&["prod"][..])), Some("models")),
            // With routers alone no model is used directly.
            ((None, Some(&["prod"][..])), (Some(&["oa/big"][..]), Some(&["prod"][..])), Some("models")),
            ((None, Some(&["prod"][..])), (None, Some(&["prod", "dev"][..])), Some("routers")),
            ((None, Some(&["*"][..])), (None, Some(&["prod"][..])), None),
            ((Some(&["oa/*"][..]), Some(&["prod"][..])), (Some(&["oa/big"][..]), None), None),
        ] {
            let told = compared(of(before.0, before.1), of(after.0, after.1));
            assert_eq!(told, wider, "{before:?} {after:?}");
        }
    }

    #[test]
    fn networks_and_paths_are_compared_by_what_they_let_through() {
        let network = |list: &[&str]| list.iter().map(|text| Network::parse(text).unwrap()).collect::<Box<[_]>>();
        for (before, after, is_wider) in [
            (&["10.0.0.0/8"][..], &["10.0.0.0/8"][..], false),
            (&["10.0.0.0/8"], &["10.1.0.0/16", "10.2.3.4"], false),
            (&["10.1.0.0/16"], &["10.0.0.0/8"], true),
            (&["10.0.0.0/8"], &["10.0.0.0/7"], true),
            (&["10.0.0.0/8"], &["11.0.0.0/16"], true),
            (&["10.0.0.0/8"], &["::ffff:10.1.0.0/112"], false),
            (&["::ffff:10.0.0.0/104"], &["0.0.0.0/0"], true),
            (&["2001:db8::/32"], &["2001:db8:1::/48"], false),
            (&["2001:db8::/32"], &["::/0"], true),
            (&["10.0.0.0/8"], &["::/0"], true),
        ] {
            let of = |list| narrowed(Narrowed { networks: Some(network(list)), ..Narrowed::default() });
            assert_eq!(compared(of(before), of(after)), is_wider.then_some("networks"), "{before:?} {after:?}");
        }
        let path = |(path, methods): &(&str, &[&str])| {
            AllowedPath::new(path, methods.iter().map(SmolStr::new).collect()).unwrap()
        };
        let post: &[&str] = &["POST"];
        for (before, after, is_wider) in [
            (&[("/v1/*", &[][..])][..], &[("/v1/chat/*", &[][..]), ("/v1/x", post)][..], false),
            (&[("/v1/chat/*", &[])], &[("/v1/*", &[])], true),
            (&[("/v1/*", post)], &[("/v1/x", &[])], true),
            (&[("/v1/*", post), ("/v1/x", &["GET"])], &[("/v1/x", &["GET", "POST"])], false),
            (&[("/v1/*", post)], &[("/v1/x", &["GET"])], true),
            (&[("/v1/chat*", &[])], &[("/v1/chat/completions", &[])], false),
            (&[("/v1/x", &[])], &[("/v1/x", post)], false),
        ] {
            let of = |list: &[(&str, &[&str])]| {
                narrowed(Narrowed { paths: Some(list.iter().map(path).collect()), ..Narrowed::default() })
            };
            assert_eq!(compared(of(before), of(after)), is_wider.then_some("paths"), "{before:?} {after:?}");
        }
    }

    #[test]
    fn limits_are_compared_by_their_meters_and_caps() {
        let of = |text: &str| KeyDetails { limits: key_limits("k", text).unwrap().into(), ..KeyDetails::default() };
        for (before, after, is_wider) in [
            ("[{budget: {usd: 50, every: month}}]", "[{budget: {usd: 50, every: month}}]", false),
            ("[{budget: {usd: 50, every: month}}]", "[{budget: {usd: 10, every: month}}]", false),
            ("[{budget: {usd: 50, every: month}}]", "[{budget: {usd: 51, every: month}}]", true),
            ("[{budget: {usd: 50, every: month}}]", "[{budget: {usd: 10, every: day}}]", true),
            ("[{budget: {usd: 50, every: month}}]", "[{budget: {usd: 50, every: month}, mode: warn}]", true),
            ("[{budget: {usd: 50, every: month}}]", "[{budget: {usd: 50, every: month}}, {concurrency: 3}]", false),
            ("[{rate: {requests: 60, every: minute}}]", "[{rate: {requests: 30, every: minute}}]", false),
            ("[{rate: {requests: 60, every: minute}}]", "[{rate: {requests: 61, every: minute, burst: 1}}]", true),
            ("[{concurrency: 3}]", "[{concurrency: 3, each: model}]", true),
        ] {
            let told = compared(of(before), of(after));
            assert_eq!(told, is_wider.then_some("limits"), "{before} {after}");
        }
        assert_eq!(compared(of("[{concurrency: 3}]"), KeyDetails::default()), Some("limits"));
    }

    #[test]
    fn what_rules_see_of_a_key_is_as_it_was() {
        let tags = |list: &[&str]| KeyDetails { tags: names(list), ..KeyDetails::default() };
        assert_eq!(compared(tags(&["a", "b"]), tags(&["b", "a"])), None);
        assert_eq!(compared(tags(&["a", "b"]), tags(&["a"])), Some("tags"));
        let roles = |list: &[&str]| KeyDetails { roles: names(list), ..KeyDetails::default() };
        assert_eq!(compared(roles(&["r", "s"]), roles(&["s"])), None);
        assert_eq!(compared(roles(&["r"]), roles(&["s"])), Some("roles"));
        let metadata = || KeyDetails { metadata: [("env".into(), "dev".into())].into(), ..KeyDetails::default() };
        assert_eq!(compared(metadata(), KeyDetails::default()), Some("metadata"));
        let payer = KeyDetails { payer: Some("ops".into()), ..KeyDetails::default() };
        assert_eq!(compared(KeyDetails::default(), payer), Some("team"));
        let pause = Pause { at: Timestamp::from_millis(0), by: EntityUid::new("User", "a").unwrap() };
        let paused = || KeyDetails { disabled: Some(pause.clone()), ..KeyDetails::default() };
        assert_eq!(compared(KeyDetails::default(), paused()), None);
        assert_eq!(compared(paused(), KeyDetails::default()), Some("disabled"));
        let ends =
            |at: Option<i64>| KeyRecord { expires_at: at.map(Timestamp::from_millis), ..key(KeyDetails::default()) };
        let bundle = snapshot();
        assert_eq!(widened(&ends(Some(5)), &ends(Some(4)), &bundle), None);
        assert_eq!(widened(&ends(None), &ends(Some(4)), &bundle), None);
        assert_eq!(widened(&ends(Some(5)), &ends(Some(6)), &bundle), Some("expires_at"));
        assert_eq!(widened(&ends(Some(5)), &ends(None), &bundle), Some("expires_at"));
    }
}
